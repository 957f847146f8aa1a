"""Evaluate a causal network in wavefront order: everything that does not wait for one another at once.

Give layer l the time ``j + s i + a_l`` at pixel (i, j). If every tap reads something earlier, all work of one time is independent: the
pixels of a slanted line, in every image of the batch. An image of H rows and W columns takes ``W + s (H - 1)`` steps instead of
``H W``, and about the arithmetic of one pass over all pixels.

What the layers read of earlier times is known when a time begins: it is gathered and multiplied for many layers at once. Only what they
read of one another at the same time is left, layer after layer.

B batch, n active rows, H rows, C channels, L layers, T taps.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from vlae.core.causal import CausalNet, Seen
from vlae.core.layers import Conv
from vlae.core.taps import HERE, IMAGE, Layers, Offset, Reads


class Schedule(NamedTuple):
    """When each layer runs: at pixel (i, j) layer l runs at time ``j + slope i + lags[l]``."""

    slope: int
    lags: tuple[int, ...]
    """One for every source: 0 for the image, whose pixel is known at the end of its time, then the layers'."""


def schedule(layers: Layers, predictor: Reads | None = None) -> Schedule:
    """The schedule with the smallest slope: the longest path over the taps gives the lags, and the last layer may not be late.

    >>> from vlae.core.taps import stack, rectangle
    >>> schedule(stack(6)).slope, schedule(rectangle(5, 3)).slope, schedule(rectangle(7, 4)).slope
    (2, 3, 4)

    Raises:
        ValueError: no slope will do, since a pixel would be needed before it is written.
    """
    together = [*(layer.reads for layer in layers), *([(predictor,)] if predictor else [])]
    farthest = 2 + sum(max(abs(dj) for read in reads for _, dj in read.taps) for reads in together)
    for slope in range(1, farthest + 1):
        lags = [0]
        for layer in layers:
            lags.append(max(_earliest(read, lags, slope) for read in layer.reads))
        if lags[-1] <= 0 and (predictor is None or _earliest(predictor, lags, slope) <= 0):
            return Schedule(slope, tuple(lags))
    raise ValueError("these taps have no schedule: the network would need a pixel before it is written")


def _earliest(read: Reads, lags: list[int], slope: int) -> int:
    return max(lags[read.source] + dj + slope * di for di, dj in read.taps) + (1 if read.source == IMAGE else 0)


class Line(NamedTuple):
    """The pixels ``j = time - slope i`` of some rows: all that are written at one time."""

    rows: range
    time: int
    slope: int

    def of(self, image: Shaped[Tensor, "H V B C"]) -> Shaped[Tensor, "n B C"]:
        """A view of the line's pixels in an image made by ``lined_up``."""
        _, wide, batch, channels = image.shape
        start = (self.rows.start * (wide - self.slope) + self.time) * batch * channels
        steps = ((wide - self.slope) * batch * channels, channels, 1)
        return image.as_strided((len(self.rows), batch, channels), steps, image.storage_offset() + start)


Write = Callable[[Seen, Line], Float[Tensor, "B K n 1"]]
"""From what is known about the pixels of a line ((B, C, n, 1) each): the image's values there."""


class _Moment(NamedTuple):
    """A tap in time: so many rows below, so many steps ago."""

    di: int
    delay: int


class _Columns:
    """The last few columns, in time, of sources of one width: ``values`` is (depth, sources, above + H, B, C), zero outside the image."""

    def __init__(self, sources: range, lags: tuple[int, ...], moments: list[_Moment], like: Float[Tensor, "H B C"]) -> None:
        self.sources = sources
        self.first, self.last = min(lags[source] for source in sources), max(lags[source] for source in sources)
        self.above = max(-moment.di for moment in moments)
        depth = 1 + max(moment.delay for moment in moments)
        self.values = like.new_zeros(depth, len(sources), self.above + like.shape[0], *like.shape[1:])

    def at(self, time: int, rows: range, di: int = 0) -> tuple[Float[Tensor, "nB C"], ...]:
        """Each source in some rows of a time."""
        found = self.values[time % len(self.values), :, self.above + rows.start + di : self.above + rows.stop + di]
        return found.flatten(1, 2).unbind()

    def begin(self, time: int, active: Callable[[int, int], range]) -> None:
        """Forget what the column of this time held when it was last used, where it is not written again."""
        now = active(time, self.first).start
        before = active(time - len(self.values), self.last).start if now else 0
        if before < now:
            self.values[time % len(self.values), :, self.above + before : self.above + now].zero_()


class _Read(NamedTuple):
    """What one reader reads of one source, with a weight for each tap; ``reader`` is its place among those of its lag."""

    reader: int
    source: int
    moments: tuple[_Moment, ...]
    weights: tuple[Float[Tensor, "C D"], ...]

    def part(self, chosen: Collection[_Moment]) -> "_Read":
        """Only the chosen taps."""
        pairs = [(m, w) for m, w in zip(self.moments, self.weights, strict=True) if m in chosen]
        return self._replace(moments=tuple(m for m, _ in pairs), weights=tuple(w for _, w in pairs))


class _Gathering:
    """Reads with the same taps of sources of one width, for evenly spaced readers: one gathering and one product for all of them."""

    def __init__(self, columns: _Columns, reads: list[_Read]) -> None:
        self.columns, moments = columns, reads[0].moments
        depth, sources, height, self.batch, _ = columns.values.shape
        slots = torch.tensor([[(phase - m.delay) % depth for m in moments] for phase in range(depth)])
        source = torch.tensor([read.source - columns.sources.start for read in reads])
        row = torch.tensor([columns.above + m.di for m in moments])
        column = slots.unsqueeze(1) * sources + source.view(1, -1, 1)
        device = columns.values.device
        self.corners = (((column * height) + row) * self.batch).unsqueeze(2).to(device)
        self.places = torch.arange((height - columns.above) * self.batch, device=device).unsqueeze(1)
        self.weight = torch.stack([torch.cat(read.weights) for read in reads])
        readers = [read.reader for read in reads]
        self.readers = slice(readers[0], readers[-1] + 1, readers[1] - readers[0] if len(readers) > 1 else 1)

    def add_to(self, sums: Float[Tensor, "N nB D"], time: int, rows: range) -> None:
        """Add what is read at a time to the sums of the readers."""
        here = self.places[rows.start * self.batch : rows.stop * self.batch]
        index = self.corners[time % len(self.corners)] + here
        gathered = self.columns.values.flatten(0, 3).index_select(0, index.flatten())
        sums[self.readers].baddbmm_(gathered.view(*index.shape[:2], -1), self.weight)


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


class _Turn(NamedTuple):
    """What is left to do for one learned layer at every time: ``column`` is its place among the learned columns."""

    number: int
    place: int
    """among the layers of its lag"""
    column: int
    residual: tuple[int, int] | None
    """which column it adds, and of how many steps ago"""
    late: list[tuple[int, int, Float[Tensor, "C D"]]]
    """the columns of this time that it reads, each so many rows below, with the weights"""


class _Begun(NamedTuple):
    """Layers at the begin of a time: their columns, and their sums of the code and of earlier times, both halves of them apart."""

    rows: range
    here: tuple[Float[Tensor, "nB C"], ...]
    sums: tuple[Float[Tensor, "nB D"], ...]
    shown: tuple[Float[Tensor, "nB C"], ...]
    gates: tuple[Float[Tensor, "nB C"], ...]


class _Team:
    """Learned layers of one lag: they are active in the same rows, and what they read of earlier times is taken together."""

    def __init__(self, front: "Wavefront", lag: int, numbers: list[int]) -> None:
        self.front, self.lag = front, lag
        reads = [front.read(number, place, k) for place, number in enumerate(numbers) for k in range(len(front.net.convs[number]))]
        known = [front.known(read) for read in reads]
        self.gatherings = front.gatherings([read.part(early) for read, early in zip(reads, known, strict=True)])
        late = [read.part(set(read.moments) - early) for read, early in zip(reads, known, strict=True)]
        self.turns = [front.turn(number, place, [read for read in late if read.reader == place]) for place, number in enumerate(numbers)]
        self.bias = torch.stack([front.bias(number) for number in numbers]).unsqueeze(1)
        self.code = None if front.code is None else torch.stack([front.from_code(number) for number in numbers])

    def begin(self, time: int, rows: range) -> _Begun:
        """Add up what is known before the layers of this time add to it."""
        if self.code is None:
            sums = self.bias.repeat(1, len(rows) * self.front.batch, 1)
        else:
            code = self.front.code_along(time - self.lag, rows)
            sums = torch.baddbmm(self.bias, code.expand(len(self.turns), -1, -1), self.code)
        for gathering in self.gatherings:
            gathering.add_to(sums, time, rows)
        shown, gates = sums.chunk(2, dim=2)
        return _Begun(rows, self.front.hidden.at(time, rows), sums.unbind(), shown.unbind(), gates.unbind())


class Wavefront:
    """A causal network ready to run in wavefront order over images of one size and batch.

    It keeps a few columns of every layer: beside the code map, memory grows with the height of an image and not with its area.
    """

    def __init__(self, net: CausalNet, code: Float[Tensor, "B M H W"] | None, batch: int, height: int, width: int) -> None:
        self.net, self.batch, self.height, self.width = net, batch, height, width
        self.plan = schedule(net.layers, net.predictor)
        self.like = next(net.parameters()).detach()
        self.code = None if code is None else self.lined_up(code)
        self.first = 1 + sum(net.fixed)
        """the first source that is learned"""
        self.contexts = self._columns(range(self.first), net.inputs)
        self.hidden = self._columns(range(self.first, len(net.layers) + 1), net.width)
        lags = self.plan.lags
        numbers = sorted(range(self.first - 1, len(net.layers)), key=lambda n: lags[n + 1])
        self.teams = [_Team(self, lag, list(team)) for lag, team in groupby(numbers, key=lambda n: lags[n + 1])]
        self.turns = sorted((turn.number, team, turn) for team, members in enumerate(self.teams) for turn in members.turns)
        self.prediction = self.gatherings([self._prediction()]) if net.predictor else []

    def _columns(self, sources: range, channels: int) -> _Columns:
        lags = self.plan.lags
        reads = [(lags[n], read) for n, layer in enumerate(self.net.layers, start=1) for read in layer.reads]
        reads += [(0, self.net.predictor)] if self.net.predictor else []
        moments = [self._moment(lag, read.source, tap) for lag, read in reads if read.source in sources for tap in read.taps]
        like = self.like.new_empty(self.height, self.batch, channels)
        return _Columns(sources, lags, [*moments, _Moment(0, max(0, -lags[-1]))], like)

    def _moment(self, lag: int, source: int, tap: Offset) -> _Moment:
        return _Moment(tap[0], lag - self.plan.lags[source] - tap[1] - self.plan.slope * tap[0])

    def read(self, number: int, reader: int, k: int) -> _Read:
        """The ``k``-th read of learned layer ``number``, counted from 0."""
        conv, source = self.net.convs[number][k], self.net.layers[number].reads[k].source
        moments = tuple(self._moment(self.plan.lags[number + 1], source, tap) for tap in conv.taps)
        return _Read(reader, source, moments, tuple(w.t() for w in conv.weight().unbind(2)))

    def _prediction(self) -> _Read:
        """The linear prediction, as what one reader reads."""
        assert self.net.predictor is not None and self.net.prediction is not None
        moments = tuple(self._moment(0, self.net.predictor.source, tap) for tap in self.net.predictor.taps)
        return _Read(0, self.net.predictor.source, moments, tuple(w.t() for w in self.net.prediction.unbind(2)))

    def turn(self, number: int, place: int, late: list[_Read]) -> _Turn:
        """What learned layer ``number`` does when its turn comes."""
        source, lag = self.net.layers[number].residual, self.plan.lags[number + 1]
        residual = None if source is None else (source - self.first, self._moment(lag, source, HERE).delay)
        reads = [(read.source - self.first, m.di, w) for read in late for m, w in zip(read.moments, read.weights, strict=True)]
        return _Turn(number, place, number + 1 - self.first, residual, reads)

    def known(self, read: _Read) -> set[_Moment]:
        """The taps whose values are there when the learned layers begin a time."""
        return {moment for moment in read.moments if moment.delay > 0 or read.source < self.first}

    def gatherings(self, reads: list[_Read]) -> list[_Gathering]:
        """Reads put together as far as they are alike."""
        alike: dict[tuple[bool, tuple[_Moment, ...]], list[_Read]] = {}
        for read in reads:
            if read.moments:
                alike.setdefault((read.source < self.first, read.moments), []).append(read)
        return [_Gathering(self.contexts if known else self.hidden, run) for (known, _), group in alike.items() for run in _runs(group)]

    def _condition(self, number: int) -> Conv | None:
        name = str(number)
        return cast(Conv, self.net.conditions[name]) if self.code is not None and name in self.net.conditions else None

    def bias(self, number: int) -> Float[Tensor, " D"]:
        """What a learned layer adds to its sum everywhere."""
        condition = self._condition(number)
        of_reads = torch.stack([*(conv.b for conv in self.net.convs[number])]).sum(0)
        return of_reads if condition is None else of_reads + condition.b

    def from_code(self, number: int) -> Float[Tensor, "M D"]:
        """The weights with which a learned layer reads the code map, zero where it does not."""
        assert self.code is not None
        condition = self._condition(number)
        return self.like.new_zeros(self.code.shape[3], 2 * self.net.width) if condition is None else condition.weight().flatten(1).t()

    def lined_up(self, image: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "H V B C"]:
        """An image in memory so that the pixels of a line lie evenly apart, for which it must not be narrower than the slope."""
        wide = F.pad(image, (0, max(0, self.plan.slope - image.shape[3])))
        return wide.permute(2, 3, 0, 1).contiguous()

    def code_along(self, time: int, rows: range) -> Float[Tensor, "nB M"]:
        """The code map at the pixels that are written, or would be, at a time."""
        assert self.code is not None
        return Line(rows, time, self.plan.slope).of(self.code).flatten(0, 1)

    def run(self, write: Write) -> None:
        """Visit every pixel once; ``write`` is told what is known there and gives the image's values, on which later pixels rest."""
        for columns in (self.contexts, self.hidden):
            columns.values.zero_()
        for time in range(min(self.plan.lags), self.width + self.plan.slope * (self.height - 1)):
            self.contexts.begin(time, self._active)
            self.hidden.begin(time, self._active)
            for number in range(self.first - 1):
                self._filter(number, time)
            self._learn(time)
            if rows := self._active(time, 0):
                values = write(self._seen(time, rows), Line(rows, time, self.plan.slope))
                self.contexts.at(time, rows)[IMAGE].copy_(by_line(values).flatten(0, 1))

    def _active(self, time: int, lag: int) -> range:
        """The rows whose pixel of this time lies inside the image."""
        now, slope = time - lag, self.plan.slope
        first = min(self.height, max(0, -((self.width - 1 - now) // slope)))
        return range(first, max(first, min(self.height, now // slope + 1)))

    def _filter(self, number: int, time: int) -> None:
        """Write a fixed layer's column of this time."""
        layer, lag = self.net.layers[number], self.plan.lags[number + 1]
        rows = self._active(time, lag)
        total = self.contexts.at(time, rows)[number + 1].zero_()
        for read, weights in zip(layer.reads, layer.fixed or (), strict=True):
            for tap, weight in zip(read.taps, weights, strict=True):
                moment = self._moment(lag, read.source, tap)
                total.add_(self.contexts.at(time - moment.delay, rows, moment.di)[read.source], alpha=weight)

    def _learn(self, time: int) -> None:
        """Write every learned layer's column of this time, in their order."""
        begun = [team.begin(time, rows) if (rows := self._active(time, team.lag)) else None for team in self.teams]
        for _, team, turn in self.turns:
            if (state := begun[team]) is not None:
                self._take(turn, state, time)

    def _take(self, turn: _Turn, state: _Begun, time: int) -> None:
        for column, di, weight in turn.late:
            columns = state.here if di == 0 else self.hidden.at(time, state.rows, di)
            state.sums[turn.place].addmm_(columns[column], weight)
        shown, opened = state.shown[turn.place], state.gates[turn.place].sigmoid_()
        if turn.residual is None:
            torch.mul(shown, opened, out=state.here[turn.column])
        else:
            column, delay = turn.residual
            columns = state.here if delay == 0 else self.hidden.at(time - delay, state.rows)
            torch.addcmul(columns[column], shown, opened, out=state.here[turn.column])

    def _seen(self, time: int, rows: range) -> Seen:
        """What is known at the pixels of this time, as (B, channels, n, 1)."""
        prediction = None
        if self.prediction:
            sums = self.like.new_zeros(1, len(rows) * self.batch, self.net.inputs)
            for gathering in self.prediction:
                gathering.add_to(sums, time, rows)
            prediction = by_image(sums[0].unflatten(0, (-1, self.batch)))
        features = self.hidden.at(time + self.plan.lags[-1], rows)[-1]
        return Seen(by_image(features.unflatten(0, (-1, self.batch))), prediction)


def by_image(values: Shaped[Tensor, "n B C"]) -> Shaped[Tensor, "B C n 1"]:
    """The pixels of a line as an image of one column."""
    return values.permute(1, 2, 0).unsqueeze(-1)


def by_line(values: Float[Tensor, "B C n 1"]) -> Float[Tensor, "n B C"]:
    """The inverse of ``by_image``."""
    return values.squeeze(-1).permute(2, 0, 1)
