"""From resolved settings to a model."""

from vlae.core.codes import Prior
from vlae.core.decoder import Decoder
from vlae.core.distributions import BernoulliHead, Head, LogisticHead
from vlae.core.encoder import CodeMap, Encoder, GridEncoder, GridMap, Pyramid, VectorEncoder, VectorMap
from vlae.core.flows import Flow, grid_flow, vector_flow
from vlae.core.vlae import VLAE
from vlae.core.window import Window
from vlae.engine.settings import ImageFacts, Model, Settings
from vlae.errors import SettingError


def build(settings: Settings, facts: ImageFacts) -> VLAE:
    """The model that resolved settings describe, with random weights.

    Raises:
        SettingError: the window or the networks cannot be built for these images.
    """
    try:
        return _build(settings, facts)
    except ValueError as error:
        raise SettingError("This model cannot be built", rule=str(error), do="Change the settings of keep or of model") from None


def _build(settings: Settings, facts: ImageFacts) -> VLAE:
    keep, model = settings.keep, settings.model
    assert keep.window is not None
    window = Window.of(keep.window, keep.context or "pixels", facts.size or _crop(settings))
    if keep.code == "none":
        return VLAE(Prior(), None, _decoder(settings, window, facts, None))
    assert model.widths is not None and model.blocks is not None
    if not len(model.widths) == len(model.blocks) >= 2:
        raise ValueError("model.widths and model.blocks have one entry for each level of the encoder, at least two")
    pyramid = Pyramid(model.widths, model.blocks, model.encoder or "resnet")
    prior = Prior(_flow(settings, model.prior_steps, model.prior_hidden, bool(model.prior_scaled)) if model.prior == "af" else None)
    encoder, code_map = _vector(settings, facts, pyramid) if keep.code == "vector" else _grid(settings, facts, pyramid)
    return VLAE(prior, encoder, _decoder(settings, window, facts, code_map))


def _crop(settings: Settings) -> tuple[int, int] | None:
    return (settings.train.crop, settings.train.crop) if settings.train.crop else None


def head(model: Model, facts: ImageFacts) -> Head:
    """The distribution of a pixel that fits the images."""
    if facts.depth == 1:
        return BernoulliHead()
    assert model.components is not None
    return LogisticHead(2**facts.depth, facts.colours, model.components)


def _decoder(settings: Settings, window: Window, facts: ImageFacts, code_map: CodeMap | None) -> Decoder:
    model = settings.model
    pixel = head(model, facts)
    return Decoder(window, pixel, code_map, model.map_channels or 0, model.width or 0, model.pointwise or 0, model.condition or "layers")


def _vector(settings: Settings, facts: ImageFacts, pyramid: Pyramid) -> tuple[Encoder, CodeMap]:
    keep, model = settings.keep, settings.model
    assert facts.size is not None and keep.dims is not None and model.hidden is not None and model.map_channels is not None
    flow, told = _posterior_flow(settings, keep.dims, model.hidden)
    encoder = VectorEncoder(pyramid, (facts.colours, *facts.size), keep.dims, model.hidden, flow, told)
    return encoder, VectorMap(pyramid, facts.size, keep.dims, model.hidden, model.map_channels)


def _grid(settings: Settings, facts: ImageFacts, pyramid: Pyramid) -> tuple[Encoder, CodeMap]:
    keep, model = settings.keep, settings.model
    assert keep.channels is not None and keep.stride is not None and model.map_channels is not None
    if 2**pyramid.levels != keep.stride:
        raise ValueError(f"an encoder of {pyramid.levels + 1} levels has a stride of {2**pyramid.levels}, not {keep.stride}")
    flow, told = _posterior_flow(settings, keep.channels, pyramid.widths[-1])
    return GridEncoder(pyramid, facts.colours, keep.channels, flow, told), GridMap(pyramid, keep.channels, model.map_channels)


def _posterior_flow(settings: Settings, dims: int, hidden: int) -> tuple[Flow | None, int]:
    if settings.model.posterior != "iaf":
        return None, 0
    return _flow(settings, settings.model.posterior_steps, hidden, True, context=dims), dims


def _flow(settings: Settings, steps: int | None, hidden: int | None, scaled: bool, context: int = 0) -> Flow:
    keep = settings.keep
    assert steps is not None and hidden is not None
    if keep.code == "vector":
        assert keep.dims is not None
        return vector_flow(keep.dims, steps, hidden, scaled=scaled, context=context)
    assert keep.channels is not None
    return grid_flow(keep.channels, steps, hidden, scaled=scaled, context=context)
