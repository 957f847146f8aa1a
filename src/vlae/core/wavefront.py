"""Evaluate a causal network in wavefront order: everything that does not wait for one another at once.

What the layers read of earlier times is known when a time begins: it is gathered and multiplied for many layers at once. Only what they
read of one another at the same time is left, layer after layer. The tensors that this works on are the same whenever the same columns of
memory are in use, so the work of a time is bound once, as a list of operations without arguments, and repeated.

B batch, N pixels (rows under way times B), C channels, D twice the width, L layers, T taps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, groupby
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlae.core.causal import CausalNet, Operation, Seen
from vlae.core.layers import Conv
from vlae.core.schedule import Sweep, schedule
from vlae.core.taps import HERE, IMAGE, Offset, Reads

Write = Callable[[Seen, Float[Tensor, "N U 1 1"]], tuple[Float[Tensor, "N k 1 1"], Float[Tensor, "N K 1 1"]]]
"""From what is known about some pixels, and what was laid beside them: what to keep of them, and the image's values there."""

SHUT = -1e30
"""Added to a gate outside the image: what is computed there is zero, as every tap expects it."""

AT_ONCE = 64
"""For so many times the pixels are looked up together."""

FINE = 64
"""Slots are taken into use and out of it in groups of about so many pixels: work that is bound must be repeated to pay."""


class _Moment(NamedTuple):
    """A tap in time: so many rows below, so many times ago."""

    di: int
    delay: int


class _Columns:
    """The last few columns, in time, of sources of one width: ``values`` is (depth, sources, slots, B, C), zero outside the image."""

    def __init__(self, sources: range, depth: int, slots: int, batch: int, channels: int, like: Tensor) -> None:
        self.sources, self.depth = sources, depth
        self.values = like.new_zeros(depth, len(sources), slots, batch, channels)

    def at(self, time: int, source: int, slots: slice) -> Float[Tensor, "N C"]:
        """One source in some slots at a time."""
        return self.values[time % self.depth, source - self.sources.start, slots].flatten(0, 1)

    def all_at(self, phase: int, slots: slice) -> tuple[Float[Tensor, "N C"], ...]:
        """Every source in some slots at a time."""
        return self.values[phase, :, slots].flatten(1, 2).unbind()

    def blanked(self, phase: int, left: list[slice]) -> list[Operation]:
        """Forget a column in the slots that were left: in the others it is written anew."""
        parts = [self.values[phase, :, slots] for slots in left]
        return [part.zero_ for part in parts if part.numel()]

    def offsets(self, source: int, moments: Sequence[_Moment]) -> Int64[Tensor, "depth 1 T"]:
        """Where the columns of the moments of a source begin among the rows of ``values``, for every time."""
        _, sources, slots, batch, _ = self.values.shape
        delay = torch.tensor([moment.delay for moment in moments])
        column = (torch.arange(self.depth).unsqueeze(1) - delay).remainder(self.depth) * sources + source - self.sources.start
        return (column * (slots * batch)).unsqueeze(1).to(self.values.device)

    def rows(self, moments: Sequence[_Moment]) -> Int64[Tensor, "slotsB T"]:
        """Where the moments of each slot and image stand in a column."""
        _, _, slots, batch, _ = self.values.shape
        slot = (torch.arange(slots).unsqueeze(1) + torch.tensor([moment.di for moment in moments])).remainder(slots)
        return (slot.unsqueeze(1) * batch + torch.arange(batch).unsqueeze(1)).flatten(0, 1).to(self.values.device)

    def gather(self, places: Int64[Tensor, " P"], out: Float[Tensor, "P C"]) -> Operation:
        """Take what stands there."""
        rows = self.values.flatten(0, 3)
        if out.shape[1] == 1:  # numbers are taken faster than rows of one
            return partial(torch.index_select, rows.view(-1), 0, places, out=out.view(-1))
        return partial(torch.index_select, rows, 0, places, out=out)


class _Read(NamedTuple):
    """What one reader reads of one source, with a weight for each tap; ``reader`` is its place among those of its lag."""

    reader: int
    source: int
    moments: tuple[_Moment, ...]
    weights: tuple[Float[Tensor, "C D"], ...]

    def part(self, late: bool, first: int) -> "_Read":
        """Only the taps whose values come later in the same time, from learned layers (sources from ``first``), or only the others."""
        pairs = [(m, w) for m, w in zip(self.moments, self.weights, strict=True) if (m.delay == 0 and self.source >= first) == late]
        return self._replace(moments=tuple(m for m, _ in pairs), weights=tuple(w for _, w in pairs))


class _Gathering:
    """Reads with the same taps of sources of one width, for evenly spaced readers: one gathering and one product for all of them."""

    def __init__(self, columns: _Columns, reads: list[_Read]) -> None:
        self.columns, moments = columns, reads[0].moments
        self.offsets = torch.stack([columns.offsets(read.source, moments) for read in reads], dim=1)
        self.rows = columns.rows(moments)
        self.gathered = columns.values.new_empty(len(reads) * self.rows.numel(), columns.values.shape[-1])
        self.weight = torch.stack([torch.cat(read.weights) for read in reads])
        readers = [read.reader for read in reads]
        self.readers = slice(readers[0], readers[-1] + 1, readers[1] - readers[0] if len(readers) > 1 else 1)

    def bound(self, sums: Float[Tensor, "L N D"], phase: int, pixels: slice) -> list[Operation]:
        """Add what is read at a time to the sums of the readers."""
        places = (self.offsets[phase] + self.rows[pixels]).flatten()
        gathered = self.gathered[: len(places)]
        read = gathered.view(len(self.weight), sums.shape[1], -1)
        return [self.columns.gather(places, gathered), partial(sums[self.readers].baddbmm_, read, self.weight)]


def _runs(reads: list[_Read]) -> Iterator[list[_Read]]:
    """Reads parted so that within each run the readers follow one another in even steps."""
    run: list[_Read] = []
    for read in sorted(reads, key=lambda r: r.reader):
        step = read.reader - run[-1].reader if run else 1
        if step == 0 or (len(run) > 1 and step != run[1].reader - run[0].reader):
            yield run
            run = []
        run.append(read)
    if run:
        yield run


class _Team:
    """Learned layers of one lag: they are at the same pixels, and what they read of earlier times is taken together."""

    def __init__(self, front: "Wavefront", lag: int, numbers: list[int]) -> None:
        self.lag, self.numbers = lag, numbers
        reads = [front.read(number, place, k) for place, number in enumerate(numbers) for k in range(len(front.net.convs[number]))]
        early = front.gatherings([read.part(late=False, first=front.first) for read in reads])
        self.of_contexts = [gathering for gathering in early if gathering.columns is front.contexts]
        self.of_hidden = [gathering for gathering in early if gathering.columns is front.hidden]
        self.late = [read.part(late=True, first=front.first) for read in reads]
        self.told = torch.stack([front.weights_of_told(number) for number in numbers])
        self.sums = front.like.new_empty(len(numbers), front.sweep.slots * front.batch, 2 * front.net.width)


class _Told(NamedTuple):
    """Where what is told of the pixels in some slots is put at the begin of a time."""

    pixels: Float[Tensor, "n BX"]
    code: Float[Tensor, "N X"]
    """the code, and whether inside and outside"""
    inside: Float[Tensor, "N 1"]
    beside: Float[Tensor, "N U 1 1"]


@dataclass(frozen=True, eq=False)
class _Part:
    """The slots in use at a time, and what is worked on there, whatever the time."""

    slots: slice
    pixels: slice
    """the same, image by image"""
    told: dict[int, _Told]
    """for each lag"""
    sums: list[Float[Tensor, "_ N D"]]
    """for each team"""
    predicted: Float[Tensor, "1 N K"] | None


class Wavefront:
    """A causal network ready to run in wavefront order over images of one size and batch.

    It keeps a few columns of every layer, for the rows under way: beside the maps that it is given, memory grows with the side of an image
    and not with its area.

    Args:
        net: the network.
        code: the code map that conditions it.
        beside: what ``write`` is to be told of each pixel.
    """

    def __init__(self, net: CausalNet, code: Float[Tensor, "B M H W"] | None, beside: Float[Tensor, "B U H W"]) -> None:
        self.net, self.plan = net, schedule(net.layers, net.predictor)
        self.like = next(conv.b for convs in net.convs for conv in convs).detach()
        self.batch, self.height, self.width = len(beside), *beside.shape[2:]
        self.known = 0 if code is None else code.shape[1]
        self.map = self._told(code, beside)
        self.first = 1 + sum(net.fixed)
        """the first source that is learned"""
        short, far = self._depth(hidden=True), self._depth(hidden=False)
        self.sweep = Sweep(self.plan, self.height, self.width, self._above(), max(short, far))
        memory = partial(_Columns, slots=self.sweep.slots, batch=self.batch, like=self.like)
        self.contexts = memory(range(self.first), far, channels=net.inputs)
        self.hidden = memory(range(self.first, len(net.layers) + 1), short, channels=net.width)
        numbers = sorted(range(self.first - 1, len(net.layers)), key=lambda n: self.plan.lags[n + 1])
        self.teams = [_Team(self, lag, list(team)) for lag, team in groupby(numbers, key=lambda n: self.plan.lags[n + 1])]
        self.step = max(1, FINE // self.batch)
        self.prediction = self.gatherings([self._prediction()]) if net.predictor else []
        self.predicted = self.like.new_empty(1, self.sweep.slots * self.batch, net.inputs)

    def _told(self, code: Tensor | None, beside: Tensor) -> Float[Tensor, "P BX"]:
        """All that is told of each pixel, and at the end of what lies outside: code, whether inside or outside, and what is beside."""
        told = beside.new_zeros(self.height * self.width + 1, self.batch, self.known + 2 + beside.shape[1])
        told[:-1, :, self.known] = 1
        told[-1, :, self.known + 1] = 1
        image = told[:-1].view(self.height, self.width, *told.shape[1:]).permute(2, 3, 0, 1)
        image[:, self.known + 2 :] = beside
        if code is not None:
            image[:, : self.known] = code
        return told.flatten(1)

    def _readers(self) -> Iterator[tuple[int, Reads]]:
        """All reads, each with the lag of its reader: those of the layers, and that of the linear prediction."""
        for lag, layer in zip(self.plan.lags[1:], self.net.layers, strict=True):
            yield from ((lag, read) for read in layer.reads)
        if self.net.predictor:
            yield 0, self.net.predictor

    def _above(self) -> int:
        """How many rows up the taps reach."""
        return max(-di for _, read in self._readers() for di, _ in read.taps)

    def _depth(self, hidden: bool) -> int:
        """How many times back the learned columns, or those of the contexts, are read."""
        reads = [(lag, read) for lag, read in self._readers() if (read.source >= self.first) == hidden]
        delays = [m.delay for lag, read in reads for m in self._moments(lag, read.source, read.taps)]
        return 1 + max([0, *delays, *([-self.plan.lags[-1]] if hidden else [])])

    def _moments(self, lag: int, source: int, taps: tuple[Offset, ...]) -> tuple[_Moment, ...]:
        return tuple(self._moment(lag, source, tap) for tap in taps)

    def _moment(self, lag: int, source: int, tap: Offset) -> _Moment:
        return _Moment(tap[0], lag - self.plan.lags[source] - tap[1] - self.plan.slope * tap[0])

    def read(self, number: int, reader: int, k: int) -> _Read:
        """The ``k``-th read of learned layer ``number``, counted from 0."""
        source, conv = self.net.layers[number].reads[k].source, self.net.convs[number][k]
        moments = self._moments(self.plan.lags[number + 1], source, conv.taps)
        return _Read(reader, source, moments, tuple(w.t() for w in conv.weight().unbind(2)))

    def _prediction(self) -> _Read:
        """The linear prediction, as what one reader reads."""
        read, weights = self.net.predictor, self.net.prediction
        assert read is not None and weights is not None
        return _Read(0, read.source, self._moments(0, read.source, read.taps), tuple(w.t() for w in weights.unbind(2)))

    def gatherings(self, reads: list[_Read]) -> list[_Gathering]:
        """Reads put together as far as they are alike."""
        alike: dict[tuple[bool, tuple[_Moment, ...]], list[_Read]] = {}
        for read in reads:
            if read.moments:
                alike.setdefault((read.source < self.first, read.moments), []).append(read)
        return [_Gathering(self.contexts if known else self.hidden, run) for (known, _), group in alike.items() for run in _runs(group)]

    def weights_of_told(self, number: int) -> Float[Tensor, "X D"]:
        """What a learned layer makes of the code, of being inside (its bias) and of being outside (its gates shut)."""
        condition = cast(Conv, self.net.conditions[str(number)]) if self.known and str(number) in self.net.conditions else None
        bias = torch.stack([conv.b for conv in self.net.convs[number]]).sum(0)
        code = self.like.new_zeros(self.known, len(bias))
        if condition is not None:
            bias, code = bias + condition.b, condition.weight().flatten(1).t()
        outside = torch.cat([torch.zeros_like(bias[: self.net.width]), torch.full_like(bias[self.net.width :], SHUT)])
        return torch.cat([code, bias.unsqueeze(0), outside.unsqueeze(0)])

    def run(self, write: Write) -> Float[Tensor, "B k H W"]:
        """Visit every pixel once, and return what ``write`` keeps of them; later pixels rest on the values that it gives."""
        with torch.inference_mode():  # every operation costs less so; what is returned is a tensor like any other
            kept = self._run(write)
        return kept[:-1].view(self.height, self.width, self.batch, -1).permute(2, 3, 0, 1).clone()

    def _run(self, write: Write) -> Float[Tensor, "P Bk"]:
        for columns in (self.contexts, self.hidden):
            columns.values.zero_()
        # What is bound is kept where it comes again: with a window that reaches across the image it does not.
        again = 8 * max(self.hidden.depth, self.contexts.depth) < len(self.sweep.times)
        keep: Callable[[Any], Any] = cache if again else lambda bind: bind
        part, begun, looked, learned = cache(self._part), keep(self._begun), keep(self._looked), keep(self._learned)
        seen, image = keep(self._seen), keep(self._image)
        kept: Tensor | None = None
        for time, pixels in self._times():
            memory, context = time % self.hidden.depth, time % self.contexts.depth
            low, high = self.sweep.stretch(time, self.step)
            if low == high:  # nothing is there
                self.hidden.values[memory].zero_()
                self.contexts.values[context].zero_()
                continue
            here = part(low, high)
            for lag, told in here.told.items():
                torch.index_select(self.map, 0, pixels[lag][here.slots], out=told.pixels)
            for operation in chain(begun(memory, here), looked(context, here), learned(memory, here)):
                operation()
            if time < 0:
                continue
            found, values = write(seen(memory, here), here.told[0].beside)
            torch.mul(values.flatten(1), here.told[0].inside, out=image(context, here))
            if kept is None:
                kept = found.new_empty(len(self.map), self.batch * found.shape[1])
            kept.index_copy_(0, pixels[0][here.slots], found.view(-1, kept.shape[1]))
        assert kept is not None
        return kept

    def _times(self) -> Iterator[tuple[int, dict[int, Int64[Tensor, " slots"]]]]:
        """All times, each with the pixels that the slots hold for every lag."""
        times, lags = self.sweep.times, sorted({0, *self.plan.lags})
        for start in range(times.start, times.stop, AT_ONCE):
            some = range(start, min(start + AT_ONCE, times.stop))
            pixels = [self.sweep.pixels(some, lag).to(self.like.device).unbind() for lag in lags]
            for n, time in enumerate(some):
                yield time, {lag: rows[n] for lag, rows in zip(lags, pixels, strict=True)}

    def _part(self, low: int, high: int) -> _Part:
        count = (high - low) * self.batch
        told = {lag: self._told_there(high - low) for lag in sorted({0, *self.plan.lags})}
        sums = [self._scratch(team.sums, count) for team in self.teams]
        return _Part(
            slice(low, high),
            slice(low * self.batch, high * self.batch),
            told,
            sums,
            self._scratch(self.predicted, count) if self.prediction else None,
        )

    @staticmethod
    def _scratch(whole: Float[Tensor, "L _ D"], count: int) -> Float[Tensor, "L N D"]:
        """So many pixels of a tensor that all parts work in, next to one another: products of several layers must lie so."""
        return whole.flatten()[: len(whole) * count * whole.shape[2]].view(len(whole), count, -1)

    def _seen(self, phase: int, part: _Part) -> Seen:
        features = self.hidden.at(phase + self.plan.lags[-1], len(self.net.layers), part.slots)
        return Seen(by_pixel(features), None if part.predicted is None else by_pixel(part.predicted[0]))

    def _image(self, phase: int, part: _Part) -> Float[Tensor, "N K"]:
        return self.contexts.at(phase, IMAGE, part.slots)

    def _told_there(self, slots: int) -> _Told:
        pixels = self.map.new_empty(slots, self.map.shape[1])
        code, beside = pixels.view(slots * self.batch, -1).tensor_split([self.known + 2], dim=1)
        return _Told(pixels, code, code[:, self.known : self.known + 1], by_pixel(beside))

    def _begun(self, phase: int, part: _Part) -> list[Operation]:
        """Add up what is told and what the learned layers read of their earlier times."""
        operations = self.hidden.blanked(phase, self.sweep.left(part.slots.start, self.hidden.depth, self.step))
        for team, sums in zip(self.teams, part.sums, strict=True):
            operations.append(partial(torch.bmm, part.told[team.lag].code.expand(len(sums), -1, -1), team.told, out=sums))
            for gathering in team.of_hidden:
                operations += gathering.bound(sums, phase, part.pixels)
        return operations

    def _looked(self, phase: int, part: _Part) -> list[Operation]:
        """Write the fixed layers' columns, and add what is read of them and of the image."""
        operations = self.contexts.blanked(phase, self.sweep.left(part.slots.start, self.contexts.depth, self.step))
        for source in range(1, self.first):
            operations += self._filter(source, phase, part)
        for team, sums in zip(self.teams, part.sums, strict=True):
            for gathering in team.of_contexts:
                operations += gathering.bound(sums, phase, part.pixels)
        if part.predicted is not None:
            operations.append(part.predicted.zero_)
            for gathering in self.prediction:
                operations += gathering.bound(part.predicted, phase, part.pixels)
        return operations

    def _filter(self, source: int, phase: int, part: _Part) -> Iterator[Operation]:
        """Write a fixed layer's column: the weighted sum of its taps, channel by channel."""
        lag, layer, here = self.plan.lags[source], self.net.layers[source - 1], self.contexts.at(phase, source, part.slots)
        reads = [(read.source, self._moments(lag, read.source, read.taps)) for read in layer.reads]
        places = torch.cat([self.contexts.offsets(source, m)[phase] + self.contexts.rows(m)[part.pixels] for source, m in reads], dim=1).t().flatten()
        weights = here.new_tensor([w for some in layer.fixed or () for w in some])
        gathered = here.new_empty(len(places), here.shape[1])
        yield self.contexts.gather(places, gathered)
        yield partial(torch.mv, gathered.view(len(weights), -1).t(), weights, out=here.view(-1))
        yield partial(here.mul_, part.told[lag].inside)

    def _learned(self, phase: int, part: _Part) -> list[Operation]:
        """Write the learned layers' columns, in their order: add what is read of this same time, then the gate and the residual."""
        columns = self.hidden.all_at(phase, part.slots)
        work: dict[int, list[Operation]] = {}
        for team, sums in zip(self.teams, part.sums, strict=True):
            for place, (number, whole) in enumerate(zip(team.numbers, sums.unbind(), strict=True)):
                late = [o for read in team.late if read.reader == place for o in self._late(read, whole, columns, phase, part)]
                residual = self._residual(number, columns, phase, part)
                work[number] = [*late, *self.net.gate.bound(whole, residual, out=columns[number + 1 - self.first])]
        return [operation for number in sorted(work) for operation in work[number]]

    def _late(self, read: _Read, sums: Float[Tensor, "N D"], columns: Sequence[Tensor], phase: int, part: _Part) -> Iterator[Operation]:
        """Add what a layer reads of another at the same time."""
        for moment, weight in zip(read.moments, read.weights, strict=True):
            values = columns[read.source - self.first]
            if moment.di != 0:
                values = torch.empty_like(values)
                places = self.hidden.offsets(read.source, [moment])[phase] + self.hidden.rows([moment])[part.pixels]
                yield self.hidden.gather(places.flatten(), values)
            yield partial(sums.addmm_, values, weight)

    def _residual(self, number: int, columns: Sequence[Tensor], phase: int, part: _Part) -> Float[Tensor, "N C"] | None:
        source = self.net.layers[number].residual
        if source is None:
            return None
        ago = self._moment(self.plan.lags[number + 1], source, HERE).delay
        return columns[source - self.first] if ago == 0 else self.hidden.at(phase - ago, source, part.slots)


def by_pixel(values: Float[Tensor, "N C"]) -> Float[Tensor, "N C 1 1"]:
    """Pixels as images of one pixel each."""
    return values[:, :, None, None]
