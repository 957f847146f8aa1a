"""From resolved settings to a model."""

from dataclasses import replace

from vlae.core.codes import Prior
from vlae.core.decoder import Decoder
from vlae.core.encoder import Encoder, GridEncoder, VectorEncoder
from vlae.core.flows import Flow, grid_flow, vector_flow
from vlae.core.plan import DecoderPlan
from vlae.core.vlae import VLAE
from vlae.engine.settings import ImageFacts, Settings
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


def decoder_plan(settings: Settings, facts: ImageFacts) -> DecoderPlan:
    """What the decoder of resolved settings is made from."""
    keep, model, crop = settings.keep, settings.model, settings.train.crop
    assert keep.window is not None and keep.code != "auto"
    return DecoderPlan(
        window=keep.window,
        context=keep.context or "pixels",
        image=facts.size or ((crop, crop) if crop else None),
        levels=2**facts.depth,
        colours=facts.colours,
        components=model.components or 0,
        code=keep.code,
        dims=keep.dims or keep.channels or 0,
        hidden=model.hidden or 0,
        widths=model.widths or (),
        blocks=model.blocks or (),
        block=model.encoder or "resnet",
        map_channels=model.map_channels or 0,
        width=(model.width or 0) * (model.members or 1),
        pointwise=model.pointwise or 0,
        condition=model.condition or "layers",
    )


def _build(settings: Settings, facts: ImageFacts) -> VLAE:
    model, plan = settings.model, decoder_plan(settings, facts)
    if plan.code == "none":
        return VLAE(Prior(), None, _decoder(settings, plan))
    if not len(plan.widths) == len(plan.blocks) >= 2:
        raise ValueError("model.widths and model.blocks have one entry for each level of the encoder, at least two")
    prior = Prior(_flow(plan, model.prior_steps, model.prior_hidden, bool(model.prior_scaled)) if model.prior == "af" else None)
    decoder, alone = _decoder(settings, plan), _decoder(settings, replace(plan, code="none")) if model.window_only else None
    return VLAE(prior, _encoder(settings, plan), decoder, alone)


def _decoder(settings: Settings, plan: DecoderPlan) -> Decoder:
    decoder = plan.decoder(settings.model.members or 1)
    if settings.model.tied:
        decoder.net.tie()
    return decoder


def _encoder(settings: Settings, plan: DecoderPlan) -> Encoder:
    hidden, told = plan.hidden if plan.code == "vector" else plan.widths[-1], 0
    flow = None
    if settings.model.posterior == "iaf":
        flow, told = _flow(plan, settings.model.posterior_steps, hidden, True, context=plan.dims), plan.dims
    if plan.code == "vector":
        assert plan.image is not None
        return VectorEncoder(plan.pyramid, (plan.colours, *plan.image), plan.dims, hidden, flow, told)
    stride = settings.keep.stride
    if 2**plan.pyramid.levels != stride:
        raise ValueError(f"an encoder of {plan.pyramid.levels + 1} levels has a stride of {2**plan.pyramid.levels}, not {stride}")
    return GridEncoder(plan.pyramid, plan.colours, plan.dims, flow, told)


def _flow(plan: DecoderPlan, steps: int | None, hidden: int | None, scaled: bool, context: int = 0) -> Flow:
    assert steps is not None and hidden is not None
    make = vector_flow if plan.code == "vector" else grid_flow
    return make(plan.dims, steps, hidden, scaled=scaled, context=context)
