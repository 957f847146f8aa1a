"""A contract: what a code should keep and what it should ignore, in a file that is checked against an audit."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlae.engine.kept.audit import WANTED, Term
from vlae.engine.kept.changes import CHANGES
from vlae.engine.kept.guide import in_pixels
from vlae.engine.kept.spectrum import Spectrum
from vlae.engine.kept.swap import Swap
from vlae.errors import ContractError, SettingError


@dataclass(frozen=True)
class Contract:
    """For each change what should become of it, and from how many pixels on structures should be kept."""

    keep: Mapping[str, str]
    above: float | None = None

    @classmethod
    def read(cls, path: Path) -> "Contract":
        r"""Read it from a YAML or JSON file.

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "contract.yaml"
        >>> _ = path.write_text("keep: {shift_1px: kept, noise: ignored}\nabove: 8px\n")
        >>> Contract.read(path)
        Contract(keep={'shift_1px': 'kept', 'noise': 'ignored'}, above=8.0)

        Raises:
            SettingError: it is no such file, or names a change that there is not (the nearest is told).
        """
        tree = _tree(path)
        for name in tree:
            if name not in ("keep", "above"):
                raise SettingError(f"{path} cannot be a contract", rule="It has keep and above, nothing else", found=name, do="Correct it")
        keep = tree.get("keep") or {}
        if not isinstance(keep, dict) or not (keep or "above" in tree):
            rule = "Its keep names changes, each with kept, partly or ignored; its above is a number of pixels"
            raise SettingError(f"{path} asks for nothing", rule=rule, do="For example keep: {noise: ignored}")
        try:
            above = in_pixels(tree["above"]) if "above" in tree else None
        except ValueError as error:
            raise SettingError(f"above of {path} cannot be read", rule=str(error), found=repr(tree["above"]), do="Correct it") from None
        return cls({_change(path, name): _wanted(path, name, value) for name, value in keep.items()}, above)

    def terms(self, swaps: Iterable[Swap], spectrum: Spectrum) -> tuple[Term, ...]:
        """Each term, and whether it is held.

        Raises:
            SettingError: a change that leaves these images as they are is asked for.
        """
        found = {swap.change: swap for swap in swaps}
        for name in self.keep:
            if name not in found:
                rule = "A contract names changes that can be measured"
                raise SettingError(f"The change {name} leaves these images as they are", rule=rule, do=f"Leave {name} out")
        asked = tuple(_term(found[name], wanted) for name, wanted in self.keep.items())
        return asked if self.above is None else (*asked, above_term("contract", self.above, spectrum))


def _term(swap: Swap, wanted: str) -> Term:
    figures = f"{swap.share:.1%}, {swap.low:.1%} to {swap.high:.1%}"
    return Term("contract", swap.change, wanted, swap.verdict, swap.verdict == wanted, figures)


def above_term(source: Any, pixels: float, spectrum: Spectrum) -> Term:
    """Whether structures of so many pixels and more are kept."""
    found = spectrum.keeps(pixels)
    coarse = [(low, period) for period, low in zip(spectrum.pixels, spectrum.low, strict=True) if period >= pixels]
    figures = "there is none in these images" if not coarse else "at least {:.2f} survives, least at {:.3g} px".format(*min(coarse))
    return Term(source, "above", f"{pixels:g} px", found, found == "kept", figures)


def check(terms: Iterable[Term]) -> None:
    """Tell of the terms of a contract that are broken.

    Raises:
        ContractError: there are some.
    """
    asked = [term for term in terms if term.source == "contract"]
    if broken := [term for term in asked if not term.held]:
        found = "; ".join(map(said, broken))
        do = "Choose another window or contract, or train longer"
        raise ContractError(f"{len(broken)} of {len(asked)} terms of the contract are broken", found=found, do=do)


def said(term: Term) -> str:
    """A term and what was found, in a few words."""
    what, wanted = (f"what is above {term.wanted}", "kept") if term.name == "above" else (term.name, term.wanted)
    return f"{what} should be {wanted} and is {term.found} ({term.figures})"


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        found = (str(error).splitlines() or [""])[0]
        raise SettingError(f"The contract {path} cannot be read", found=found, do="Give a YAML or JSON file") from None
    if not isinstance(tree, dict):
        raise SettingError(f"{path} cannot be a contract", rule="It is a mapping with keep, above or both", do="For example keep: {noise: ignored}")
    return tree


def _change(path: Path, name: object) -> str:
    if str(name) in CHANGES:
        return str(name)
    near = difflib.get_close_matches(str(name), CHANGES, n=1, cutoff=0.4)
    do = f"Did you mean {near[0]}?" if near else f"Choose of {', '.join(CHANGES)}"
    raise SettingError(f"{path} names the change {name}, which there is not", rule="Changes are spelt exactly", do=do)


def _wanted(path: Path, name: object, value: object) -> str:
    if value not in WANTED:
        raise SettingError(f"{name} in {path} cannot be {value!r}", rule=f"It is one of {', '.join(WANTED)}", do="Correct it")
    return str(value)
