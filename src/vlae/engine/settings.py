"""Everything that a user can set, validated: a misspelt or unused setting is an error, and a run keeps what it was resolved to."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from vlae.data.settings import DataSettings
from vlae.engine.kept import guide
from vlae.errors import SettingError

FORMAT: Literal[1] = 1


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Keep(_Group):
    """What the code is to keep. ``preset`` names it; the other settings refine it."""

    preset: Literal["layout", "shape", "detail", "everything"] = Field(
        "layout",
        description="layout: position, size and arrangement (the decoder sees a wide window). shape: also outlines (window 4x2). "
        "detail: also fine structure (one pixel around). everything: texture and noise too (the decoder sees nothing: a plain VAE).",
    )
    window: str | None = Field(None, description="What the decoder sees: none, all, stackN, rN or AxB (columns x rows above).")
    context: Literal["pixels", "grey", "low", "high"] | None = Field(None, description="Of what: the pixels, their grey, low-pass or high-pass.")
    noise: NonNegativeFloat | None = Field(
        None,
        description="Standard deviation, in levels of 8 bits, of noise on what the decoder sees while it learns: what it cannot rely on must go "
        "through the code, and its own errors do not grow as it draws.",
    )
    code: Literal["auto", "vector", "grid", "none"] = Field(
        "auto",
        description="vector: one code an image of fixed size. grid: a code for each place, images of any size. auto: vector up to 128 pixels.",
    )
    above: Annotated[float, BeforeValidator(guide.in_pixels)] | None = Field(
        None,
        description="Structures of so many pixels (8px, a dark and a bright stripe together) and more should be kept: sets preset, window and a grid "
        "code, where they are not given, by what was measured with each; vlae audit tells whether it came true.",
    )
    dims: PositiveInt | None = Field(None, description="Dimensions of a vector code.")
    channels: PositiveInt | None = Field(None, description="Channels of a grid code.")
    stride: Literal[2, 4, 8, 16, 32] | None = Field(None, description="Pixels for each place of a grid code.")
    bits: PositiveFloat | None = Field(None, description="Bits that the code is held at: for an image (vector), for each 1,000 pixels (grid).")


class Model(_Group):
    """How large the networks are, and of which kind."""

    size: Literal["small", "medium", "large"] = Field("small", description="Sets width, pointwise and hidden together.")
    width: PositiveInt | None = Field(None, description="Channels of the decoder's layers.")
    pointwise: NonNegativeInt | None = Field(None, description="Layers of 1x1 taps after each layer that reads the window but the last.")
    hidden: PositiveInt | None = Field(None, description="Units of the fully connected layers (vector codes).")
    map_channels: PositiveInt | None = Field(None, description="Channels of the code's map that the decoder reads.")
    condition: Literal["layers", "input"] | None = Field(None, description="Where the code enters the decoder: every layer, or the first.")
    tied: bool | None = Field(None, description="Whether layers of the decoder that read alike share directions of weights: less is learnt by heart.")
    members: PositiveInt | None = Field(
        None, description="Networks of the decoder, each of this width, that learn apart; a pixel's probability is their geometric mean."
    )
    window_only: bool | None = Field(None, description="Whether a decoder without a code is trained along, for global evidence of defects.")
    components: PositiveInt | None = Field(None, description="Logistics in the mixture of a pixel.")
    encoder: Literal["resnet", "densenet"] | None = Field(None, description="Blocks of the encoder.")
    widths: tuple[PositiveInt, ...] | None = Field(None, description="Channels of the encoder's levels, the first at full size.")
    blocks: tuple[NonNegativeInt, ...] | None = Field(None, description="Blocks of the encoder's levels.")
    prior: Literal["gaussian", "af"] | None = Field(None, description="gaussian, or an autoregressive flow of it.")
    prior_steps: PositiveInt | None = Field(None, description="Steps of the prior's flow.")
    prior_hidden: PositiveInt | None = Field(None, description="Units or maps of its networks.")
    prior_scaled: bool | None = Field(None, description="Whether its steps scale as well as shift.")
    posterior: Literal["gaussian", "iaf"] | None = Field(None, description="gaussian, or an inverse autoregressive flow of it.")
    posterior_steps: PositiveInt | None = Field(None, description="Steps of the posterior's flow.")


class Objective(_Group):
    """What training minimises."""

    kind: Literal["elbo", "free_bits", "soft_free_bits", "rate"] | None = Field(
        None, description="The bound; the bound with free nats for the code; the same by an adaptive weight; the code held at keep.bits."
    )
    floor: PositiveFloat | None = Field(None, description="Free nats of each dimension of a vector code, or of each channel and place of a grid.")
    plain_after: float | None = Field(None, gt=0.0, le=1.0, description="Share of the steps after which the plain bound is trained.")
    warmup: NonNegativeInt = Field(0, description="Steps over which the weight of the code's cost grows from 0 to 1.")


class Train(_Group):
    """How training goes."""

    start: Path | None = Field(
        None, description="A run, or a model of the zoo, to start from instead of random weights; keep and model are taken from it."
    )
    steps: PositiveInt = Field(4000, description="Updates of the weights.")
    batch: PositiveInt = Field(32, description="Images (or crops) of an update, over all processes.")
    crop: PositiveInt | None = Field(None, description="Side of the square crops that a grid code trains on.")
    crop_step: PositiveInt | None = Field(
        None, description="Crops begin at multiples of so many pixels: what repeats in every image, as scaling or JPEG left it, is then learned."
    )
    shift: NonNegativeInt = Field(0, description="Move each image of a batch by up to so many pixels, at random: where images are few.")
    shift_until: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the steps after which images are moved no more: the model ends on them as they are."
    )
    mirror: bool = Field(False, description="Mirror each image of a batch left and right at random: where both sides are as likely.")
    optimizer: Literal["adamax", "adam", "muon"] = Field(
        "adamax", description="adamax: the paper's. adam: learns faster from few steps. muon: faster still where most weights are convolutions'."
    )
    learning_rate: PositiveFloat = Field(0.002, description="Of the optimizer.")
    decay: float = Field(0.4, ge=0.0, le=1.0, description="Share of the steps, at the end, over which the learning rate falls to zero.")
    ramp: NonNegativeInt = Field(50, description="Steps over which the learning rate rises.")
    ema: float = Field(0.998, ge=0.0, lt=1.0, description="Decay of the averaged weights, which are used ever after.")
    seed: int = Field(0, ge=0, lt=2**63)
    validate_every: PositiveInt = Field(500, description="Steps between validations; the last step is validated too.")
    validate_images: PositiveInt = Field(200, description="Images of a validation, at most.")
    patience: PositiveInt | None = Field(None, description="Stop after so many validations without a better one.")
    max_minutes: PositiveFloat | None = Field(None, description="Stop after so many minutes; --resume goes on.")
    absurd: PositiveFloat = Field(20.0, description="Skip an update whose gradient is so many times longer than usual.")
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    device: Literal["cpu", "cuda", "auto"] = "auto"
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()


class Settings(_Group):
    """All settings of a run."""

    format: Literal[1] = FORMAT
    data: DataSettings
    keep: Keep = Keep()
    model: Model = Model()
    objective: Objective = Objective()
    train: Train = Train()


class ImageFacts(_Group):
    """What the model must know of the images."""

    depth: Literal[1, 8, 16]
    colours: Literal[1, 3]
    size: tuple[int, int] | None
    """Height and width where all images share them."""
    dynamic: bool = False


_PRESETS: dict[str, dict[str, Any]] = {
    "layout": {"window": "stack6", "stride": 16, "channels": 8, "dims": 32},
    "shape": {"window": "4x2", "stride": 8, "channels": 8, "dims": 64},
    "detail": {"window": "r1", "stride": 8, "channels": 16, "dims": 128},
    "everything": {"window": "none", "stride": 4, "channels": 16, "dims": 256},
}
_SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 16, "pointwise": 1, "map_channels": 8, "hidden": 256, "encoder_width": 16, "components": 3},
    "medium": {"width": 32, "pointwise": 1, "map_channels": 16, "hidden": 450, "encoder_width": 32, "components": 5},
    "large": {"width": 64, "pointwise": 1, "map_channels": 32, "hidden": 640, "encoder_width": 48, "components": 10},
}
_LARGEST_VECTOR = 128


def wants_vector(settings: Settings, facts: ImageFacts) -> bool:
    """Whether these images get a vector code: where it is asked for, or where they share a size of at most 128 pixels."""
    if settings.keep.code == "auto":
        return facts.size is not None and max(facts.size) <= _LARGEST_VECTOR
    return settings.keep.code == "vector"


def resolve(settings: Settings, facts: ImageFacts) -> Settings:
    """Every setting with its value for these images; those without effect are None.

    Raises:
        SettingError: a setting is given that would have no effect, or two contradict each other.
    """
    settings = _guided(settings)
    given = settings.model_dump(exclude_none=True)
    code = "none" if settings.keep.code == "none" else "vector" if wants_vector(settings, facts) else "grid"
    keep = _filled("keep", given["keep"] | {"code": code}, _keep_defaults(settings.keep, code, facts))
    model = _filled("model", given["model"], _model_defaults(settings.model, keep, facts))
    objective = _filled("objective", given["objective"], _objective_defaults(settings.objective, keep))
    if code == "vector" or (code == "none" and facts.size is not None and max(facts.size) <= _LARGEST_VECTOR):
        train = _filled("train", given["train"], {})
    else:
        train = _filled("train", given["train"], {"crop": min([64, *(facts.size or ())]), "crop_step": 1})
    resolved = Settings.model_validate(given | {"keep": keep, "model": model, "objective": objective, "train": train})
    _agree(resolved, facts)
    return resolved


def _guided(settings: Settings) -> Settings:
    """Settings whose preset, window and kind of code, where they are not given, are those that keep.above asks for."""
    keep = settings.keep
    if keep.above is None or keep.code == "none":
        return settings
    row = guide.row_for(keep.above)
    given = keep.model_dump(exclude_unset=True, exclude_none=True)
    code = "grid" if keep.code == "auto" else keep.code
    return settings.model_copy(update={"keep": Keep.model_validate({"preset": row.preset, "window": row.window, **given, "code": code})})


def _agree(settings: Settings, facts: ImageFacts) -> None:
    """Refuse settings that contradict each other, or of which one leaves another idle."""
    keep, model, objective, train = settings.keep, settings.model, settings.objective, settings.train
    kind, coded = objective.kind, keep.code != "none"
    pace = f"train.steps {train.steps} and train.validate_every {train.validate_every}"
    rules = (
        (not coded and kind != "elbo", f"objective.kind is {kind}", "Without a code only elbo can be trained", "keep.code none"),
        (not coded and objective.warmup, f"objective.warmup is {objective.warmup}", "It is for the cost of a code", "keep.code none"),
        (kind == "rate" and keep.bits is None, "objective.kind is rate", "It holds the code at keep.bits", "no keep.bits"),
        (kind != "rate" and keep.bits, f"keep.bits is {keep.bits}", "Only objective.kind rate holds the code at it", f"objective.kind {kind}"),
        (keep.context == "grey" and facts.colours == 1, "keep.context is grey", "It is for images in colour", "images in grey"),
        (model.encoder == "densenet" and not any(model.blocks or ()), "model.encoder is densenet", "It is a kind of blocks", "no model.blocks"),
        (model.members and facts.depth > 1, f"model.members is {model.members}", "They are for images of 1 bit", f"images of {facts.depth} bits"),
        (train.shift_until and not train.shift, f"train.shift_until is {train.shift_until}", "It is for images that are moved", "train.shift 0"),
        (_idle(train), f"train.patience is {train.patience}", "So many validations after the first come before the last step", pace),
    )
    for broken, what, rule, found in rules:
        if broken:
            raise SettingError(what, rule=rule, found=found, do="Change one of the two")


def _idle(train: Train) -> bool:
    """Whether patience can end no training before its end: the first validation is always the best so far."""
    return train.patience is not None and (train.patience + 1) * train.validate_every >= train.steps


def _keep_defaults(keep: Keep, code: str, facts: ImageFacts) -> dict[str, Any]:
    preset = _PRESETS[keep.preset]
    window = keep.window or preset["window"]
    if code == "none" and keep.window is None:
        window = "all" if facts.size is not None else preset["window"]
    wanted = {"vector": ("dims",), "grid": ("channels", "stride"), "none": ()}[code]
    seen: dict[str, Any] = {} if window == "none" else {"context": "pixels", "noise": None}
    coded = {"bits": None, "above": None} if code != "none" else {}
    return {"window": window, **seen, **coded, **{name: preset[name] for name in wanted}}


def _model_defaults(model: Model, keep: Mapping[str, Any], facts: ImageFacts) -> dict[str, Any]:
    size = _SIZES[model.size]
    defaults: dict[str, Any] = {} if facts.depth == 1 else {"components": size["components"]}
    if keep["window"] != "none":
        defaults |= {"width": size["width"], "pointwise": size["pointwise"], "tied": None, "members": None}
    if keep["code"] == "none":
        return defaults
    prior, posterior = model.prior or "af", model.posterior or "gaussian"
    defaults |= {"map_channels": size["map_channels"], "encoder": "resnet", "prior": prior, "posterior": posterior}
    if keep["window"] != "none":
        defaults |= {"condition": "layers", "window_only": False}
    if keep["code"] == "vector":
        defaults["hidden"] = size["hidden"]
    if prior == "af":
        hidden = {"vector": 4 * size["hidden"] // 3, "grid": 32}[keep["code"]]
        defaults |= {"prior_steps": 4 if keep["code"] == "vector" else 2, "prior_hidden": hidden, "prior_scaled": False}
    if posterior == "iaf":
        defaults["posterior_steps"] = 2
    return defaults | _pyramid_defaults(model, keep, facts, size["encoder_width"])


def _pyramid_defaults(model: Model, keep: Mapping[str, Any], facts: ImageFacts, width: int) -> dict[str, Any]:
    if keep["code"] == "grid":
        levels = int(keep["stride"]).bit_length() - 1
    else:
        assert facts.size is not None
        levels = max(1, (min(facts.size) // 3).bit_length() - 1)  # down to between 3 and 7 places a side
    widths = model.widths or (width, width, *[2 * width] * (levels - 1))
    return {"widths": widths, "blocks": (0, *[1] * (len(widths) - 2), 0)}


def _objective_defaults(objective: Objective, keep: Mapping[str, Any]) -> dict[str, Any]:
    if keep["code"] == "none":
        return {"kind": "elbo"}
    if keep.get("bits") is not None:
        return {"kind": "rate"}
    kind = objective.kind or "free_bits"
    more: dict[str, Any] = {"elbo": {}, "rate": {}}.get(kind, {"floor": 0.25, "plain_after": 1.0})
    return {"kind": kind} | more


def _filled(group: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings over the defaults; one that is given but has no default here would have no effect."""
    always = {"keep": {"preset", "code"}, "model": {"size"}, "objective": {"warmup"}, "train": set(Train.model_fields) - {"crop", "crop_step"}}[group]
    for name in given:
        if name not in defaults and name not in always:
            raise SettingError(
                f"{group}.{name} would have no effect with these settings",
                rule="Every setting that is given must be used",
                found=f"{group}.{name}={given[name]!r}",
                do=f"Leave out {group}.{name}, or change what makes it idle (the code, the window or the kind of objective)",
            )
    return {**defaults, **given}


def load_settings(config: Path | None, overrides: Sequence[str], flags: Mapping[str, Any]) -> Settings:
    """Settings from a YAML file, then ``group.name=value`` overrides, then flags of the command line, the later the stronger.

    Raises:
        SettingError: the file is unreadable, a name is unknown (the nearest known one is told), or a value is not allowed.
    """
    tree: dict[str, Any] = _read_yaml(config) if config else {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise SettingError(f"Override {override!r} cannot be read", rule="An override is group.name=value", do="For example keep.window=4x2")
        _place(tree, name, _value(override, value))
    for name, value in flags.items():
        if value is not None:
            _place(tree, name, value)
    return validated(tree)


def validated(tree: Mapping[str, Any]) -> Settings:
    """The settings of a tree of plain values.

    Raises:
        SettingError: as for ``load_settings``.
    """
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _explained(error) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingError(f"The configuration {path} cannot be read", found=str(error).splitlines()[0], do="Give a YAML file") from None
    if not isinstance(tree, dict):
        raise SettingError(f"The configuration {path} is not a mapping", rule="It has groups: data, keep, model, objective, train")
    return tree


def _value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingError(f"Override {override!r} cannot be read", rule="Its value is YAML", do="Close every bracket and quote") from None


def _place(tree: dict[str, Any], name: str, value: Any) -> None:
    group, _, leaf = name.partition(".")
    if not leaf:
        raise SettingError(f"Override {name!r} names no setting", rule="A setting is group.name", do="For example train.steps=2000")
    branch = tree.setdefault(group, {})
    if not isinstance(branch, dict):
        raise SettingError(f"{group} is not a group of settings", found=branch)
    branch[leaf] = value


def _sentence(told: str) -> str:
    """What pydantic says, without its own words around ours."""
    rule = told.removeprefix("Value error, ")
    return rule[:1].upper() + rule[1:]


def _explained(error: ValidationError) -> SettingError:
    """The first complaint in the words of this package, with the nearest known name where one is misspelt."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known_names() if "." in name else list(Settings.model_fields), n=1, cutoff=0.5)
        return SettingError(
            f"{name} is not a setting", rule="Settings are spelt exactly", do=f"Did you mean {near[0]}?" if near else "See docs/settings.md"
        )
    if first["type"] == "missing":
        return SettingError(f"{name} is missing", rule="It must be given")
    return SettingError(
        f"{name} is not allowed", rule=_sentence(first["msg"]), found=repr(first.get("input")), do="Change it in the configuration or the override"
    )


def known_names() -> list[str]:
    """The dotted names of all settings.

    >>> "keep.window" in known_names()
    True
    """
    groups: dict[str, type[BaseModel]] = {"data": DataSettings, "keep": Keep, "model": Model, "objective": Objective, "train": Train}
    return [f"{group}.{name}" for group, kind in groups.items() for name in kind.model_fields]
