"""The real command line: what it promises, and what it says to bad input. Nothing may end in a traceback, or be lost."""

import json
import os
import pty
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlae import cli

TINY = [
    "keep.window=stack1",
    "keep.dims=2",
    "model.width=4",
    "model.pointwise=0",
    "model.hidden=8",
    "model.prior=gaussian",
    "model.widths=[4,4]",
    "model.blocks=[0,0]",
    "train.steps=4",
    "train.batch=4",
]


def vlae(*words: object, **more: object) -> tuple[int, str]:
    """Run the command line in this process: its exit code and all that it says."""
    from typer.testing import CliRunner

    runner = CliRunner()
    before = sys.argv
    sys.argv = ["vlae", *map(str, words)]
    try:
        with runner.isolation() as (out, err, _):
            try:
                cli.main()
                code: object = 0
            except SystemExit as stop:
                code = stop.code
            return int(code or 0), (out.getvalue() + err.getvalue()).decode()  # type: ignore[call-overload]
    finally:
        sys.argv = before


def picture(path: Path, size: tuple[int, int] = (12, 12), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)).save(path)
    return path


def good(folder: Path, count: int = 20) -> Path:
    for n in range(count):
        picture(folder / f"{n:02d}.png", seed=n)
    return folder


class Watched:
    """A terminal, and all that was written to it; it is read at once, for it holds little."""

    def __init__(self) -> None:
        self.reader, writer = pty.openpty()
        self.terminal = os.fdopen(writer, "w", encoding="utf-8")
        self.seen = ""
        self.thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Watched":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.terminal.close()
        self.thread.join()
        os.close(self.reader)

    def _read(self) -> None:
        said = b""
        try:
            while part := os.read(self.reader, 4096):
                said += part
        except OSError:  # how Linux tells that the other end is closed
            pass
        self.seen = said.decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that every test may read, none change."""
    folder = tmp_path_factory.mktemp("module")
    code, said = vlae("train", good(folder / "images"), "-o", folder / "run", *TINY)
    assert code == 0, said
    return folder / "run"


def copied(run: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(run, to)
    return to


def refused(said: str, *parts: str) -> bool:
    return "Traceback" not in said and "Error: " in said and all(part in said for part in parts)


def test_the_whole_way(run: Path, tmp_path: Path) -> None:
    code, said = vlae("evaluate", run, "--json")
    found = json.loads(said.strip().splitlines()[-1])
    promised = "nll_nats nll_nats_se bits_per_dim rate_bits distortion_bits psnr ssim n_images importance_samples protocol".split()
    assert code == 0 and all(name in found for name in promised)
    assert found["nll_nats"] * 1.4426950408889634 == pytest.approx(found["rate_bits"] + found["distortion_bits"])
    assert found["bits_per_dim"] == pytest.approx((found["rate_bits"] + found["distortion_bits"]) / 144)
    images = run.parent / "images"
    assert vlae("reconstruct", run, images, "-o", tmp_path / "r", "--decodings", 2)[0] == 0
    assert len(list((tmp_path / "r").glob("*.png"))) == 20 * 3
    assert np.array_equal(np.asarray(Image.open(tmp_path / "r" / "00.png.original.png")), np.asarray(Image.open(images / "00.png")))
    assert vlae("sample", run, "-o", tmp_path / "s", "-n", 3)[0] == vlae("sample", run, "-o", tmp_path / "t", "-n", 2)[0] == 0
    for name in ("sample-0000.png", "sample-0001.png"):  # an image does not depend on how many are drawn with it
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()


def test_more_samples_never_loosen_the_bound_and_a_cut_off_evaluation_is_resumed(run: Path, tmp_path: Path) -> None:
    mine = copied(run, tmp_path / "run")
    bound = json.loads(vlae("evaluate", mine, "--split", "train", "--json")[1].strip().splitlines()[-1])
    whole = json.loads(vlae("evaluate", mine, "--split", "train", "--samples", 16, "--json")[1].strip().splitlines()[-1])
    assert whole["nll_nats"] <= bound["nll_nats"] and 1 <= whole["effective_samples"] <= 16
    log = mine / "results" / "likelihood-train-16.jsonl"
    lines = log.read_text().strip().splitlines(keepends=True)
    log.write_text("".join(lines[:5]) + lines[5][:20])
    again = json.loads(vlae("evaluate", mine, "--split", "train", "--samples", 16, "--json")[1].strip().splitlines()[-1])
    for name in ("nll_nats", "nll_nats_se", "bits_per_dim", "effective_samples"):  # grouped otherwise, float32 rounds otherwise
        assert again[name] == pytest.approx(whole[name], rel=1e-5)


def test_help_is_quick_and_loads_no_torch() -> None:
    def seconds() -> float:
        # Of the processor, not of the clock: other work on the machine does not count.
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "vlae.cli", "--help"], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    script = "import sys, vlae.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert min(seconds() for _ in range(3)) < 0.3


def test_every_command_answers_json() -> None:
    for command in cli.app.registered_commands:
        assert command.callback is not None and "as_json" in command.callback.__annotations__


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    code, said = vlae("train", tmp_path / "none", "-o", tmp_path / "run")
    assert code == 3 and refused(said, "is empty") and not (tmp_path / "run").exists()


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("nothing to see")
    code, said = vlae("train", tmp_path / "texts", "-o", tmp_path / "run")
    assert code == 3 and refused(said) and not (tmp_path / "run").exists()


def test_bad_images_among_good_ones_are_left_out_and_told(tmp_path: Path) -> None:
    folder = good(tmp_path / "images")
    (folder / "truncated.png").write_bytes((folder / "00.png").read_bytes()[:60])
    (folder / "zero.png").write_bytes(b"")
    picture(folder / "named.png", seed=99).rename(folder / "named.jpg")
    frames = [Image.fromarray(np.full((12, 12), v, np.uint8)) for v in (0, 255)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    Image.new("CMYK", (12, 12)).save(folder / "cmyk.jpg")
    picture(folder / "dot.png", size=(1, 1))
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    code, said = vlae("train", folder, "-o", tmp_path / "run", *TINY, "data.size=[12,12]", "data.minimum=4")
    assert code == 0 and "Left out" in said
    summary = json.loads((tmp_path / "run" / "images.json").read_text())["summary"]
    lost = {name for entry in summary["left_out"] for name in entry["names"]}
    assert lost == {"truncated.png", "zero.png", "moving.webp", "cmyk.jpg", "dot.png", "huge.png"}
    assert sum(summary["splits"].values()) == 21


def test_16_bit_beside_8_bit(tmp_path: Path) -> None:
    folder = good(tmp_path / "images")
    Image.fromarray(np.full((12, 12), 40000, np.uint16)).save(folder / "deep.png")
    code, said = vlae("train", folder, "-o", tmp_path / "run", *TINY)
    assert code == 3 and refused(said, "data.depth") and not (tmp_path / "run").exists()
    assert vlae("train", folder, "-o", tmp_path / "run", *TINY, "data.depth=8")[0] == 0


def test_a_table_that_names_missing_images(tmp_path: Path) -> None:
    folder = good(tmp_path / "images")
    (folder / "manifest.csv").write_text("name,label\n" + "".join(f"{n:02d}.png,good\n" for n in range(19)) + "gone.png,bad\n")
    assert vlae("train", folder, "-o", tmp_path / "run", *TINY)[0] == 0
    assert "gone.png" in (tmp_path / "run" / "images.json").read_text()
    (folder / "manifest.csv").write_text("name\ngone.png\n")
    code, said = vlae("train", folder, "-o", tmp_path / "other", *TINY)
    assert code == 3 and refused(said, "gone.png")


def test_an_output_that_exists(run: Path, tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "precious.txt").write_text("mine")
    for words in (["train", run.parent / "images", *TINY], ["sample", run], ["reconstruct", run, run.parent / "images"], ["parts"]):
        code, said = vlae(*words, *([] if words == ["parts"] else ["-o"]), tmp_path / "busy")
        assert code == 6 and refused(said) and os.listdir(tmp_path / "busy") == ["precious.txt"]


def test_an_output_that_cannot_be_written(run: Path) -> None:
    for output in ("/proc/run", "/dev/null/run"):
        code, said = vlae("train", run.parent / "images", "-o", output, *TINY)
        assert code == 6 and refused(said)


@pytest.mark.parametrize(
    "override, code, part",
    [
        ("keep.windw=4x2", 2, "keep.window"),
        ("keep.window=4y2", 2, "4y2"),
        ("keep.channels=3", 2, "no effect"),
        ("train.batch=0", 2, "train.batch"),
        ("train.batch=400", 3, "train.batch"),
        ("train.device=cuda", 5, "GPU"),
        ("nonsense", 2, "nonsense"),
    ],
)
def test_settings_that_cannot_be_honoured(run: Path, tmp_path: Path, override: str, code: int, part: str) -> None:
    if override == "train.device=cuda" and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    got, said = vlae("train", run.parent / "images", *TINY, override, "-o", tmp_path / "run")
    assert got == code and refused(said, part) and not (tmp_path / "run" / "config.yaml").exists()


def test_a_misspelt_key_in_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: {stepps: 3}\n")
    code, said = vlae("train", run.parent / "images", "-c", tmp_path / "c.yaml", "-o", tmp_path / "run")
    assert code == 2 and refused(said, "train.steps")


@pytest.mark.parametrize("command", ["evaluate", "sample", "report"])
def test_runs_that_cannot_be_used(run: Path, tmp_path: Path, command: str) -> None:
    code, said = vlae(command, tmp_path)
    assert code == 4 and refused(said, "is not a run")
    newer = copied(run, tmp_path / "newer")
    (newer / "config.yaml").write_text((newer / "config.yaml").read_text().replace("format: 1", "format: 99"))
    code, said = vlae(command, newer)
    assert code == 4 and refused(said, "newer", "99")
    cut = copied(run, tmp_path / "cut")
    (cut / "weights.safetensors").write_bytes((cut / "weights.safetensors").read_bytes()[:-40])
    extra = ["-o", tmp_path / "out"] if command == "sample" else []
    code, said = vlae(command, cut, *extra)
    assert code == 4 and refused(said, "weights.safetensors")
    other = copied(run, tmp_path / "other")
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("hidden: 8", "hidden: 9"))
    extra = ["-o", tmp_path / "out2"] if command == "sample" else []
    code, said = vlae(command, other, *extra)
    assert code == 4 and refused(said, "another model")


@pytest.mark.parametrize("command", ["evaluate", "sample", "reconstruct"])
def test_a_device_that_is_not_there(run: Path, tmp_path: Path, command: str) -> None:
    images = [run.parent / "images"] if command == "reconstruct" else []
    for device in ("cuda", "abacus"):
        if device == "cuda" and __import__("torch").cuda.is_available():
            continue
        code, said = vlae(command, run, *images, *([] if command == "evaluate" else ["-o", tmp_path / device]), "--device", device)
        assert code == 5 and refused(said)


def test_a_run_inside_the_folder_of_images_is_refused(tmp_path: Path) -> None:
    folder = good(tmp_path / "images")
    code, said = vlae("train", folder, "-o", folder / "run", *TINY)
    assert code == 6 and refused(said, "inside") and not (folder / "run").exists()


def test_partly_bad_images_to_reconstruct(run: Path, tmp_path: Path) -> None:
    folder = good(tmp_path / "images", 2)
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:60])
    code, said = vlae("reconstruct", run, folder, "-o", tmp_path / "r", "--decodings", 1)
    assert code == 8 and "torn.png" in said and len(list((tmp_path / "r").iterdir())) == 4
    assert said.startswith("2 images, 1 decodings each") and "Warning: " in said
    code, said = vlae("reconstruct", run, folder, "-o", tmp_path / "j", "--decodings", 1, "--json")
    found = json.loads(said.splitlines()[0])
    assert code == 8 and found["images"] == 2 and [left["name"] for left in found["left_out"]] == ["torn.png"]
    code, said = vlae("reconstruct", run, folder / "gone.png", "-o", tmp_path / "g")
    assert code == 3 and refused(said, "gone.png does not exist") and not (tmp_path / "g").exists()


def test_a_bar_where_a_person_is_watching_and_nothing_elsewhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconstruct", str(run), str(good(tmp_path / "images", 3)), "--decodings", "1"]
    code, said = vlae(*words, "-o", tmp_path / "piped")
    assert code == 0 and said == f"3 images, 1 decodings each: {tmp_path / 'piped'}\n"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "argv", ["vlae", *words, "-o", str(tmp_path / "watched")])
    with Watched() as watched, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", watched.terminal)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert stop.value.code == 0 and capsys.readouterr().out == f"3 images, 1 decodings each: {tmp_path / 'watched'}\n"
    assert "Decoding" in watched.seen and "3/3" in watched.seen and "0:00:00" in watched.seen
