"""Blinded pairs of images and decodings for people to judge, and what they answered."""

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter
from scipy.stats import binomtest

from vlae.data.files import read_text
from vlae.engine.formats import read_json, write_json
from vlae.engine.kept.audit import Rate, Site
from vlae.errors import DataError, RunError

FORMAT = 1
QUESTIONS = ("same_part", "same_defect")
KEY, ANSWERS = "key.json", "answers.csv"
# So many of the pairs show an image and the decoding of another one: whoever takes these for the same does not look.
CATCH = 0.25
YES, NO = ("yes", "y", "はい"), ("no", "n", "いいえ")


@dataclass(frozen=True)
class Pair:
    """An image and a decoding side by side."""

    image: int
    """number in the set of images"""
    decoded: int
    """number of the image whose code was decoded"""
    left: Literal["image", "decoding"]

    @property
    def catch(self) -> bool:
        """Whether the two are of different images."""
        return self.image != self.decoded


def pairs(count: int, images: int, rng: np.random.Generator) -> list[Pair]:
    """Pairs in random order and with random sides, each of another image; a quarter of them, at least one, to catch.

    Args:
        count: how many, from 2 to ``images``.
        images: how many there are.
        rng: for order and sides.
    """
    numbers = rng.permutation(images)[:count]
    catch = max(1, round(CATCH * count))
    decoded = numbers.copy()
    decoded[:catch] = np.roll(numbers, 1)[:catch]
    left = rng.integers(0, 2, count)
    order = rng.permutation(count)
    return [Pair(int(numbers[k]), int(decoded[k]), "image" if left[k] else "decoding") for k in order]


def write_key(folder: Path, made: Sequence[Pair], names: Sequence[str], weights: str) -> None:
    """Write which side of each pair is what, and an empty table for the answers."""
    rows = [{"pair": n, "left": p.left, "image": names[p.image], "decoded": names[p.decoded]} for n, p in enumerate(made, start=1)]
    write_json(folder / KEY, {"format": FORMAT, "weights": weights, "pairs": rows})


@dataclass(frozen=True)
class Keyed:
    """A pair as its key tells it."""

    pair: int
    left: Literal["image", "decoding"]
    image: str
    decoded: str


def site(answers: Path, weights: str) -> Site:
    """What was answered, from the table and the key beside it.

    Raises:
        DataError: either cannot be read, or is of another model.
    """
    key = answers.parent / KEY
    try:
        tree = read_json(key)
        found = TypeAdapter(list[Keyed]).validate_python(tree["pairs"]) if tree["weights"] == weights else None
    except (RunError, ValueError, KeyError, TypeError):
        rule = "The answers lie beside the key that was made with their sheet"
        raise DataError(f"{key} is missing or damaged", rule=rule, do=f"Put {answers.name} back into the folder of its sheet") from None
    if found is None:
        raise DataError(f"{key} is of another model", rule="Answers are about the decodings of one model", do="Make a new sheet with this run")
    table = read_answers(answers, len(found))
    true, catch = ([table.get(p.pair, {}) for p in found if (p.image != p.decoded) == other] for other in (False, True))
    unanswered = sum(len(table.get(p.pair, {})) < len(QUESTIONS) for p in found)
    part, defect, catch_part, catch_defect = (rate(row[q] for row in rows if q in row) for rows in (true, catch) for q in QUESTIONS)
    return Site(len(found), unanswered, part, defect, catch_part, catch_defect, weights)


def read_answers(path: Path, count: int) -> dict[int, dict[str, bool]]:
    """The answers to each question of each pair; those left empty are left out.

    Raises:
        DataError: a line is no answer to one of the ``count`` pairs, or nothing was answered.
    """
    found: dict[int, dict[str, bool]] = {}
    for line, row in _rows(path):
        number = str(row["pair"] or "").strip()
        if not (number.isdecimal() and len(number) < 9) or not 1 <= int(number) <= count or int(number) in found:
            rule = f"Each pair from 1 to {count} stands in one line"
            raise DataError(f"{path}, line {line}, is about no pair", rule=rule, found=number[:40] or "nothing", do="Mend that line")
        answered = {question: _answer(path, line, question, row[question]) for question in QUESTIONS}
        found[int(number)] = {question: answer for question, answer in answered.items() if answer is not None}
    if not any(found.values()):
        raise DataError(f"{path} holds no answer", rule=f"Answers are {YES[0]} or {NO[0]}", do="Fill it in")
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The rows of the table, each with the number of its line."""
    try:
        text = read_text(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read", found=error.strerror, do="Check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read", rule="Answers are text in UTF-8, or in cp932", found=error, do="Save it so") from None
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read", rule="Answers are a table with commas", found=error, do="Mend that line") from None
    columns = reader.fieldnames or ()
    if missing := [name for name in ("pair", *QUESTIONS) if name not in columns]:
        raise DataError(f"{path} lacks the column {missing[0]}", rule=f"Its columns are pair, {', '.join(QUESTIONS)}", do="Put it back")
    return rows


def _answer(path: Path, line: int, question: str, cell: str | None) -> bool | None:
    word = unicodedata.normalize("NFKC", cell or "").strip().casefold()
    if word and word not in (*YES, *NO):
        rule = f"An answer is yes or no ({', '.join((*YES, *NO))}), or empty"
        raise DataError(f"{path}, line {line}, has an answer that cannot be read", rule=rule, found=f"{question} {word[:40]}", do="Mend that line")
    return None if not word else word in YES


def rate(answers: Iterable[bool]) -> Rate:
    """How many are yes, with the exact interval; from 0 to 1 where there are none.

    >>> rate([True, True, True]).low.__round__(6)
    0.292402
    """
    given = list(answers)
    if not given:
        return Rate(0, 0, 0.0, 1.0)
    interval = binomtest(sum(given), len(given)).proportion_ci(0.95, "exact")
    return Rate(sum(given), len(given), float(interval.low), float(interval.high))
