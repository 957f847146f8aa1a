"""Images by their codes: those of a run, a folder and an archive agree, and what cannot be compared is told."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from vlae.archive.archive import Archive
from vlae.archive.parts import Damaged, Row, names_path, read_part, write_part
from vlae.engine.embed import Codes, embed
from vlae.engine.retrieval import archived, index
from vlae.engine.retrieval.archived import comparing, of_archive
from vlae.engine.retrieval.columns import columns_of, matching
from vlae.engine.retrieval.index import Encoder, Index, Picture, checked, of_folder, of_run, part_of
from vlae.engine.retrieval.named import opened, query
from vlae.engine.run import Run
from vlae.errors import ArchiveError, DataError, RunError, SettingError

from ...test_cli import TINY, picture, vlae

GRID = [
    *("keep.window=stack1", "keep.code=grid", "keep.stride=4", "keep.channels=2", "model.width=4", "model.pointwise=0", "model.prior=gaussian"),
    *("model.widths=[4,4,4]", "model.blocks=[0,0,0]", "train.batch=4", "train.steps=4", "data.minimum=12"),
]
COUNT = 24
MANIFEST = "name,label,lot,angle\n" + "".join(f"{n:02d}.png,{'good' if n % 3 else 'bad'},lot{n // 8},{n / 10}\n" for n in range(COUNT))


def made(folder: Path, settings: list[str], size: tuple[int, int]) -> Path:
    """A run of images of noise that a manifest tells of, and its archive."""
    for n in range(COUNT):
        picture(folder / "images" / f"{n:02d}.png", size, seed=n)
    (folder / "images" / "manifest.csv").write_text(MANIFEST)
    for words in (
        ["train", folder / "images", "-o", folder / "run", *settings],
        ["compress", folder / "run", folder / "images", "-o", folder / "archive"],
    ):
        code, said = vlae(*words, *(["--processes", 1, "--no-check"] if words[0] == "compress" else []))
        assert code in (0, 8), said
    return folder


@pytest.fixture(scope="session")
def vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a run with a vector code, its images and its archive, which nobody changes."""
    return made(tmp_path_factory.mktemp("vector"), TINY, (12, 12))


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a grid code of 4 x 6 places."""
    return made(tmp_path_factory.mktemp("grid"), GRID, (16, 24))


@pytest.fixture(params=["vector", "grid"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def encoder(folder: Path) -> Encoder:
    return Encoder.of(Run.open(folder / "run"))


def test_the_codes_of_a_run_are_computed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    shutil.rmtree(run / "results", ignore_errors=True)
    first, looks, kept = of_run(encoder(tmp_path)), list[int](), run / "results" / "codes.safetensors"
    monkeypatch.setattr(index, "embed", lambda *given: looks.append(1) or embed(*given))

    def again(said: int) -> None:
        codes = of_run(encoder(tmp_path)).codes
        assert len(looks) == said
        assert all(np.array_equal(one, other) for one, other in zip(codes, first.codes, strict=True))

    again(0)
    kept.write_bytes(kept.read_bytes()[:-8])
    again(1)
    again(1)
    weights = {name: tensor.half() for name, tensor in load_file(run / "weights.safetensors").items()}
    save_file(weights, run / "weights.safetensors", {"format": "1"})
    assert not np.array_equal(of_run(encoder(tmp_path)).codes.mean, first.codes.mean) and len(looks) == 2


def test_a_search_does_not_fail_where_codes_cannot_be_kept(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    shutil.rmtree(run / "results", ignore_errors=True)
    (run / "results").write_text("in the way")
    assert len(of_run(encoder(tmp_path))) == COUNT


def synthetic(mean: np.ndarray, std: float = 0.1, places: int | None = None, **more: object) -> Index:
    """An index of given codes."""
    n = len(mean)
    names, sizes = tuple(f"{k:04d}.png" for k in range(n)), np.full((n, 2), 32)
    told = {"source": Path("somewhere"), "names": names, "sha256": names, "sizes": sizes, "columns": {}, "places": places, "left_out": ()}
    codes = Codes(np.asarray(mean, np.float64), np.full(mean.shape, std))
    return Index(codes=codes, picture=lambda k: Picture(np.full((8, 8, 1), k % 256, np.uint8), 8), **(told | more))  # type: ignore[arg-type]


# Three sources, the same codes


def test_a_folder_has_the_codes_and_columns_of_the_run_that_was_made_of_it(folder: Path) -> None:
    ours, theirs = of_run(encoder(folder)), of_folder(encoder(folder), folder / "images")
    assert ours.names == theirs.names and ours.places == theirs.places and np.array_equal(ours.sizes, theirs.sizes)
    assert np.allclose(ours.codes.mean, theirs.codes.mean, atol=1e-5) and np.allclose(ours.codes.std, theirs.codes.std, atol=1e-5)
    assert ours.sha256 == theirs.sha256
    for name in ("label", "lot", "angle"):
        assert ours.columns[name].tolist() == theirs.columns[name].tolist()
    assert ours.columns["angle"].tolist() == [n / 10 for n in range(COUNT)] and ours.columns["label"][:2].tolist() == ["bad", "good"]
    for n in (0, 5):
        assert np.array_equal(ours.picture(n).pixels, theirs.picture(n).pixels)


def test_an_archive_has_the_codes_of_its_run_to_a_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive.open(folder / "archive")
    for name in ("images", "__getitem__"):
        monkeypatch.setattr(Archive, name, lambda *_: pytest.fail("a pixel was decoded"))
    ours, theirs = of_run(encoder(folder)), of_archive(archive)
    order = [theirs.names.index(name) for name in ours.names]
    assert archive.codec.codebook is not None and len(theirs) == COUNT and theirs.places == ours.places
    step = archive.codec.codebook.steps.numpy() / 2**archived.CODE_FRACTION
    places = 1 if ours.places is None else ours.places**2
    assert (np.abs(theirs.codes.mean[order] - ours.codes.mean) <= np.repeat(step, places) / 2 + 1e-5).all()
    assert ours.sha256 == tuple(theirs.sha256[n] for n in order)
    # An index stands for all codes within half a step of it: evenly, as far as is known.
    drawn = np.random.default_rng(0).uniform(-step[0] / 2, step[0] / 2, 10**6).std()
    pooled = np.sqrt(2) if ours.places == 4 else 1  # of 4 x 6 places, averaged down to 4 x 4, two go into each, some into two
    assert theirs.codes.std[0, 0] * pooled == pytest.approx(drawn, rel=0.01)


def test_streams_are_not_read(folder: Path, tmp_path: Path) -> None:
    whole = of_archive(Archive.open(folder / "archive"))
    copy = Archive.create(tmp_path / "copy", Archive.open(folder / "archive").codec)
    rows = [row for row in Archive.open(folder / "archive").rows(streams=True) if isinstance(row, Row)]
    emptied = [replace(row, packed=replace(row.packed, stored=row.packed.stored._replace(stream=b""))) for row in rows]
    write_part(copy.new_part(0), emptied, copy.codec)
    assert np.array_equal(of_archive(copy).codes.mean, whole.codes.mean)


# Hostile archives


def with_rows(source: Path, to: Path, change: Callable[[Row], Row]) -> Archive:
    """A copy of an archive whose first image is changed."""
    archive = Archive.open(source)
    rows = [row for row in archive.rows(streams=True) if isinstance(row, Row)]
    copy = Archive.create(to, archive.codec)
    write_part(copy.new_part(0), [change(rows[0]), *rows[1:]], copy.codec)
    return copy


def with_code(code: np.ndarray) -> Callable[[Row], Row]:
    return lambda row: replace(row, packed=replace(row.packed, code=code))


@pytest.mark.parametrize("code", [np.zeros((3, 1, 1), np.int16), np.zeros((1, 1, 999), np.int16)])
def test_a_code_of_another_length_is_left_out_and_told(folder: Path, tmp_path: Path, code: np.ndarray) -> None:
    found = of_archive(with_rows(folder / "archive", tmp_path / "a", with_code(code)))
    assert len(found) == COUNT - 1 and [left.reason for left in found.left_out] == ["its code is not that of an image of its size"]
    assert not found.left_out[0].harmless


def test_an_image_without_a_code_is_passed_over(folder: Path, tmp_path: Path) -> None:
    found = of_archive(with_rows(folder / "archive", tmp_path / "a", with_code(np.zeros((0, 1, 1), np.int16))))
    assert len(found) == COUNT - 1 and found.left_out[0].harmless


def test_a_damaged_part_is_told(folder: Path, tmp_path: Path) -> None:
    archive = with_rows(folder / "archive", tmp_path / "a", lambda row: row)
    rows = [row for row in Archive.open(folder / "archive").rows(streams=True) if isinstance(row, Row)]
    write_part(archive.new_part(0), rows[:3], archive.codec)
    part = archive.parts[-1]
    part.write_bytes(part.read_bytes()[:-9])
    found = of_archive(archive)
    assert len(found) == COUNT and len(found.left_out) == 3 and all("is damaged" in left.reason for left in found.left_out)
    assert names_path(part).is_file() and all(isinstance(row, Damaged) for row in read_part(part, archive.key))


def test_an_archive_without_images(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image with a code"):
        of_archive(Archive.create(tmp_path / "a", Archive.open(folder / "archive").codec))


def test_an_archive_of_another_model(vector: Path, grid: Path) -> None:
    with pytest.raises(ArchiveError, match="another model"):
        opened(vector / "archive", run=grid / "run")
    with pytest.raises(ArchiveError, match="another model"):
        comparing(encoder(grid), Archive.open(vector / "archive"))


# Manifests


def test_a_manifest_tells_of_the_images_of_an_archive(vector: Path, tmp_path: Path) -> None:
    found, _ = opened(vector / "archive", manifest=vector / "images" / "manifest.csv")
    numbers = matching(found.columns, ["angle>=1", "label=bad"], len(found))
    assert {found.names[n] for n in numbers} == {f"{n:02d}.png" for n in range(COUNT) if n >= 10 and n % 3 == 0}
    (tmp_path / "other.csv").write_text("name,label\nelsewhere.png,good\n")
    with pytest.raises(DataError, match="names no image"):
        opened(vector / "archive", manifest=tmp_path / "other.csv")


@pytest.mark.parametrize(
    "condition, numbers",
    [
        ("x=1", [1]),
        ("x != 1", [0, 2, 3]),
        ("x<1", [0]),
        ("x <= 1", [0, 1]),
        ("x>1.5", [2]),
        ("X >= 1", [1, 2]),
        ("lot=a b", [0]),
        ("lot!=c", [0, 1, 3]),
        ("lot==d", [1]),
    ],
)
def test_conditions(condition: str, numbers: list[int]) -> None:
    columns = {"x": np.array([0.0, 1.0, 2.0, np.nan]), "lot": np.array(["a b", "=d", "c", None], object)}
    if condition == "lot==d":
        with pytest.raises(SettingError, match="is no condition"):
            matching(columns, [condition], 4)
        return
    assert matching(columns, [condition], 4).tolist() == numbers
    assert matching(columns, [], 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("condition", ["", "=", "x", "x=", "=1", "x=>1", "y=1", "x>a", "lot>b", "empty=1"])
def test_conditions_without_sense(condition: str) -> None:
    columns = {"x": np.zeros(2), "lot": np.array(["a", "b"], object), "empty": np.array([None, None], object)}
    with pytest.raises(SettingError, match="--where"):
        matching(columns, [condition], 2)


def test_a_condition_that_holds_for_none() -> None:
    with pytest.raises(DataError, match="holds for no image"):
        matching({"x": np.zeros(2)}, ["x>0"], 2)
    assert matching(columns_of([None, None]), [], 2).tolist() == [0, 1]


# Queries


def test_a_query_by_name_and_by_file_are_the_same(folder: Path) -> None:
    for source, run in (("run", None), ("archive", folder / "run")):
        found, encodes = opened(folder / source, run=run)
        named, file = query(found, "03.png", encodes), query(found, str(folder / "images" / "03.png"), encodes)
        assert named.number == found.names.index("03.png") and file.number is None and named.size == file.size
        assert np.allclose(named.code.mean, file.code.mean, atol=1e-5) and np.allclose(named.code.std, file.code.std, atol=1e-5)
        assert np.array_equal(named.picture().pixels, file.picture().pixels)


def test_a_file_cannot_be_compared_with_an_archive_alone(vector: Path) -> None:
    found, encodes = opened(vector / "archive")
    with pytest.raises(SettingError, match="Give the run that it was made with by --run"):
        query(found, str(vector / "images" / "03.png"), encodes)
    assert query(found, "03.png", encodes).number is not None


def test_queries_that_cannot_be_compared(vector: Path, grid: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no image")
    (tmp_path / "torn.png").write_bytes((vector / "images" / "00.png").read_bytes()[:60])
    found, encodes = opened(vector / "run")
    for name, reason in (("words.txt", "not an image"), ("torn.png", "torn.png cannot be compared"), ("gone.png", "does not exist")):
        with pytest.raises(DataError, match=reason):
            query(found, str(tmp_path / name), encodes)
    with pytest.raises(DataError, match="it has 12 x 24 pixels, and images of this model have 12 x 12"):
        query(found, str(picture(tmp_path / "wide.png", (24, 12))), encodes)
    found, encodes = opened(grid / "run")
    with pytest.raises(DataError, match="its code has 3 x 3 places, and 4 x 4 are compared"):
        query(found, str(picture(tmp_path / "small.png", (12, 12))), encodes)
    assert query(found, str(picture(tmp_path / "large.png", (40, 32))), encodes).size == (32, 40)


# What is left out


def test_images_of_a_folder_that_cannot_be_used_are_left_out(vector: Path, tmp_path: Path) -> None:
    for n in range(3):
        picture(tmp_path / "f" / f"{n}.png", (12, 12), n)
    picture(tmp_path / "f" / "wide.png", (14, 12))
    (tmp_path / "f" / "torn.png").write_bytes((tmp_path / "f" / "0.png").read_bytes()[:60])
    (tmp_path / "f" / "words.txt").write_text("no image")
    told: list[tuple[int, int]] = []
    found = of_folder(encoder(vector), tmp_path / "f", lambda *done: told.append(done))
    assert found.names == ("0.png", "1.png", "2.png") and {left.name for left in found.left_out} == {"wide.png", "torn.png"}
    assert told[-1] == (5, 5)
    assert of_folder(encoder(vector), tmp_path / "f" / "1.png").names == ("1.png",)


def test_a_folder_without_images(vector: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image that can be compared"):
        of_folder(encoder(vector), tmp_path)


def test_codes_that_are_not_finite_are_left_out() -> None:
    mean = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0], [1e30, 0.0], [2.0, 2.0]])
    found = checked(synthetic(mean, columns={"x": np.arange(5.0)}))
    assert found.names == ("0000.png", "0004.png") and found.columns["x"].tolist() == [0, 4] and found.picture(1).pixels[0, 0, 0] == 4
    assert [left.name for left in found.left_out] == ["0001.png", "0002.png", "0003.png"]
    with pytest.raises(DataError, match="its code is not finite"):
        checked(synthetic(mean[1:4]))


def test_a_query_whose_code_is_not_finite(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, encodes = opened(vector / "run")
    monkeypatch.setattr(index, "summary", lambda *_: Codes(np.full((1, 2), np.nan), np.ones((1, 2))))
    with pytest.raises(DataError, match="its code is not finite"):
        query(found, str(vector / "images" / "00.png"), encodes)


def test_a_part_of_an_index_is_itself_one() -> None:
    found = part_of(part_of(synthetic(np.arange(10.0)[:, None]), np.array([1, 3, 5, 7])), np.array([2, 0]))
    assert found.names == ("0005.png", "0001.png") and found.codes.mean.tolist() == [[5], [1]]
    assert [found.picture(n).pixels[0, 0, 0] for n in (0, 1)] == [5, 1]


def test_images_that_a_run_kept_once_are_counted(tmp_path: Path) -> None:
    for n in range(20):
        picture(tmp_path / "images" / f"{n:02d}.png", seed=min(n, 16))
    assert vlae("train", tmp_path / "images", "-o", tmp_path / "run", *TINY)[0] == 0
    assert of_run(encoder(tmp_path)).kept_once == 3


def test_sources_that_do_not_go_together(vector: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor an archive"):
        opened(tmp_path)
    for more in ({"run": vector / "run"}, {"manifest": vector / "images" / "manifest.csv"}):
        with pytest.raises(SettingError, match="are for archives"):
            opened(vector / "run", **more)
    with pytest.raises(SettingError, match="is an archive"):
        opened(vector / "archive", images=vector / "images")


def test_a_model_without_a_code(tmp_path: Path) -> None:
    for n in range(20):
        picture(tmp_path / "images" / f"{n:02d}.png", seed=n)
    settings = [s for s in TINY if not s.startswith(("keep.dims", "model.hidden", "model.prior", "model.widths", "model.blocks"))]
    code, said = vlae("train", tmp_path / "images", "-o", tmp_path / "run", *settings, "keep.code=none")
    assert code == 0, said
    with pytest.raises(SettingError, match="has no code"):
        opened(tmp_path / "run")


@pytest.mark.parametrize("condition, numbers", [("angle>0", [1]), ("ANGLE>0", [1]), ("Angle>0", [1]), ("b=1", [0]), ("B=1", [1])])
def test_columns_that_keep_their_case_are_found(condition: str, numbers: list[int]) -> None:
    columns = {"Angle": np.array([0.0, 1.0]), "B": np.array([0.0, 1.0]), "b": np.array([1.0, 0.0])}
    assert matching(columns, [condition], 2).tolist() == numbers
