"""What the page says, in English and Japanese, and how it writes numbers."""

import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from vlae.errors import SettingError

LANGUAGES = ("en", "ja")
# The parts of a recognised sentence that are themselves sentences or words; all other parts are names and numbers.
NESTED = frozenset(("error", "form", "how", "rule", "shares", "split"))


class Words:
    """The texts of one language.

    >>> Words("en")("count.images", n=1), str(Words("en")("count.images", n=7))
    (Markup('1 image'), '7 images')

    Raises:
        SettingError: the page is not written in this language.
    """

    def __init__(self, lang: str) -> None:
        if lang not in LANGUAGES:
            raise SettingError(f"There is no report in {lang!r}", rule=f"--lang is one of {', '.join(LANGUAGES)}")
        self.lang, self.texts = lang, _texts(lang)

    def __call__(self, key: str, **values: Any) -> Markup:
        """A text as HTML, with escaped values put in; of "one || many" the first where ``n`` is 1."""
        one, _, many = self.texts[key].partition(" || ")
        return Markup(many if many and str(values.get("n")) != "1" else one).format(**values)

    def join(self, sentences: Iterable[Markup]) -> Markup:
        """Several sentences as one text."""
        return Markup(self.texts["join"]).join(sentences)

    def listed(self, items: Iterable[str]) -> str:
        """Several items as one text, which is yet to be escaped."""
        return self.texts["list"].join(map(str, items))

    def said(self, kind: str, sentence: str) -> str:
        """What another floor says in English, in this language; as it is where it is not recognised.

        It is recognised by the English texts whose keys begin with ``kind``: a reason, a note, a rule, ...

        >>> Words("ja").said("reason", "animated (3 frames)"), Words("ja").said("reason", "another reason")
        ('アニメーション（3コマ）', 'another reason')
        """
        for key, pattern in _patterns(kind):
            if found := pattern.fullmatch(sentence):
                parts = {name: self.said(kind, part) if name in NESTED else part for name, part in found.groupdict().items()}
                return self.texts[key].format(**parts)
        return sentence

    def duration(self, seconds: float) -> Markup:
        """A time as people read it.

        >>> [str(Words("en").duration(s)) for s in (42, 754, 7500)]
        ['42 s', '12 min 34 s', '2 h 5 min']
        """
        minutes, s = divmod(round(seconds), 60)
        h, m = divmod(minutes, 60)
        return self(f"duration.{'hours' if h else 'minutes' if m else 'seconds'}", h=h, m=m, s=s)

    def of(self, prefix: str) -> dict[str, str]:
        """The texts, as they are, of all keys that begin with a prefix, by what follows it."""
        return {key.removeprefix(prefix): text for key, text in self.texts.items() if key.startswith(prefix)}


@cache
def _texts(lang: str) -> dict[str, str]:
    return yaml.safe_load((Path(__file__).parent / f"{lang}.yaml").read_text(encoding="utf-8"))


@cache
def _patterns(kind: str) -> list[tuple[str, re.Pattern[str]]]:
    """The English texts of a kind as patterns in which each name in braces stands for anything."""
    texts = {key: re.escape(text) for key, text in _texts("en").items() if key.startswith(f"{kind}.")}
    return [(key, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", text), re.DOTALL)) for key, text in texts.items()]


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, and all those before the point.

    >>> number(1234.5), number(12.345), number(0.012345), number(-0.5), number(0.0)
    ('1,234', '12.3', '0.0123', '-0.500', '0')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def figure(value: float, se: float = math.nan) -> Markup:
    """A measured figure, with its standard error where there is one; the exact value is kept in the page for machines.

    >>> figure(214.321, 2.25)
    Markup('<data value="214.321">214.3 ± 2.2</data>')
    >>> figure(10079.2379, 76.1)
    Markup('<data value="10079.2379">10,079 ± 76</data>')
    """
    shown = number(value)
    if math.isfinite(se) and se > 0:
        places = max(0, 1 - math.floor(math.log10(se)))
        shown = f"{value:,.{places}f} ± {se:,.{places}f}"
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), shown)


def fixed(value: float) -> str:
    """A figure around 1, with two places.

    >>> fixed(0.987), fixed(-0.25), fixed(-0.001)
    ('0.99', '−0.25', '0.00')
    """
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def short(text: str, most: int = 80) -> str:
    """A name that does not break the page; what is cut out of its middle is shown as an ellipsis.

    >>> short("a" * 10 + "z" * 10, 9)
    'aaaa…zzzz'
    """
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[len(text) - half :]}"
