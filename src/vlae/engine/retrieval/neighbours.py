"""The nearest codes, under one of three distances.

n entries that are searched, Q queries, K neighbours of each, D numbers of a code. A query q has the mean m_q and the standard deviation
s_q of its posterior, number by number; an entry c those of its own.

- ``certainty``: ``sum_d [(m_q - m_c)^2 / (4 (s_q^2 + s_c^2)) + ln((s_q^2 + s_c^2) / (2 s_q s_c)) / 2] / ln 2``, the Bhattacharyya distance
  of the two posteriors in bits (Bhattacharyya 1943; Kailath 1967, IEEE Trans. Commun. Technol. 15(1)). It is zero for equal posteriors,
  counts a difference by how certain both codes are of that number, and says how well the two can be told apart: whoever is shown one draw
  from one of them errs with a probability of at most 2^-bits / 2.
- ``euclidean``: ``|m_q - m_c|``.
- ``cosine``: ``1 - m_q . m_c / (|m_q| |m_c|)``, and 1 where one of them is zero.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlae.engine.embed import Codes, Numbers
from vlae.errors import DeviceError

By = Literal["certainty", "euclidean", "cosine"]
BYS: tuple[By, ...] = get_args(By)

# Distances that are held at once, and numbers of codes that are worked on at once: these fit into the cache of a core.
DISTANCES, BLOCK = 2**24, 2**17
# Of more entries the neighbours of each are proposed by usearch: so many candidates for each that is wanted.
EXACT, CANDIDATES = 10**6, 8

Progress = Callable[[int, int], None]
Which = npt.NDArray[np.int64]


class Nearest(NamedTuple):
    """For each query, nearest first, the numbers of its neighbours and how far each is: (Q, K) both."""

    numbers: Which
    distances: Numbers


class Neighbours:
    """Codes to search among, made ready for one distance.

    >>> codes = Codes(np.array([[0.0], [1.0], [5.0]]), np.full((3, 1), 0.1))
    >>> found = Neighbours(codes, "euclidean")(Codes(np.array([[4.0]]), np.array([[0.1]])), 2)
    >>> found.numbers.tolist(), found.distances.tolist()
    ([[2, 1]], [[1.0, 3.0]])
    """

    def __init__(self, codes: Codes, by: By) -> None:
        self.codes, self.by = codes, by
        self.distance: Distance = _Certainty(codes) if by == "certainty" else _Product(codes, unit=by == "cosine")

    def __call__(self, queries: Codes, count: int, progress: Progress | None = None) -> Nearest:
        """The ``count`` nearest entries of each query, or all where there are fewer; of equally near ones the first.

        In float32 a distance comes out wrong in its last digits: every entry that could be among the nearest is measured again in float64.
        """
        n, total = len(self.codes.mean), len(queries.mean)
        count, each = min(count, n), max(1, DISTANCES // n)
        found: list[Nearest] = []
        for first in range(0, total, each):
            some = some_of(queries, range(first, min(first + each, total)))
            rough = self.distance.rough(some)
            last = rough.topk(count, largest=False).values[:, -1]
            near = rough <= (last + 2 * self.distance.rounding(some, last)).unsqueeze(1)
            found += [self._best(some_of(some, [q]), row.nonzero()[:, 0].numpy(), count) for q, row in enumerate(near)]
            if progress:
                progress(len(found), total)
        return _stacked(found)

    def of_each(self, count: int, progress: Progress | None = None) -> Nearest:
        """The neighbours of every entry among the others; with more than a million entries a few may be missed.

        Raises:
            DeviceError: there are so many, and usearch is not installed.
        """
        n = len(self.codes.mean)
        count = min(count, n - 1) + 1
        return _without_itself(self(self.codes, count, progress) if n <= EXACT else self._proposed(count, progress))

    def _proposed(self, count: int, progress: Progress | None) -> Nearest:
        """From the candidates of a graph (Malkov and Yashunin 2018, arXiv:1603.09320), which are measured exactly."""
        try:
            from usearch.index import Index
        except ImportError:
            what, found = f"To compare more than {EXACT:,} codes with one another needs the extra vlae[search]", "usearch not installed"
            raise DeviceError(what, found=found, do="pip install 'vlae[search]'") from None
        # The graph has one scale for all entries: of how certain they are on average.
        scale = np.sqrt(np.square(self.codes.std).mean(0)) if self.by == "certainty" else 1.0
        vectors = (self.codes.mean / scale).astype(np.float32)
        graph = Index(ndim=vectors.shape[1], metric="cos" if self.by == "cosine" else "l2sq", dtype="f32")
        graph.add(np.arange(len(vectors)), vectors)
        best: list[Nearest] = []
        for number, keys in enumerate(graph.search(vectors, CANDIDATES * count).keys):
            best.append(self._best(some_of(self.codes, [number]), np.unique(keys).astype(np.int64), count))
            if progress:
                progress(number + 1, len(vectors))
        return _stacked(best)

    def _best(self, query: Codes, near: Which, count: int) -> Nearest:
        distances = self.distance.exact(_double(query), _double(some_of(self.codes, near)))
        order = np.argsort(distances, kind="stable")[:count]
        return Nearest(near[order], distances[order])


def some_of(codes: Codes, numbers: Sequence[int] | Which) -> Codes:
    """Some of the codes, by their numbers."""
    which = slice(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
    return Codes(codes.mean[which], codes.std[which])


def _stacked(found: Sequence[Nearest]) -> Nearest:
    return Nearest(np.stack([one.numbers for one in found]), np.stack([one.distances for one in found]))


def _without_itself(nearest: Nearest) -> Nearest:
    """The neighbours of entries 0, 1, ... but for each itself, or for the last where as many others are just as near."""
    itself = nearest.numbers == np.arange(len(nearest.numbers))[:, None]
    itself[~itself.any(1), -1] = True
    shape = (len(itself), itself.shape[1] - 1)
    return Nearest(nearest.numbers[~itself].reshape(shape), nearest.distances[~itself].reshape(shape))


class Distance(Protocol):
    """Entries made ready for one distance."""

    def rough(self, queries: Codes) -> Tensor:
        """What grows with the distance of each query from each entry, in float32: (Q, n)."""

    def rounding(self, queries: Codes, at: Tensor) -> Tensor:
        """How far at most rounding has moved what is at most ``at``: (Q,)."""

    def exact(self, query: Codes, entries: Codes) -> Numbers:
        """The distance of one query from each entry, in float64."""


class _Product:
    """Distances of means from one matrix product, ``|q - c|^2 = |q|^2 + |c|^2 - 2 q.c``, which reads the entries once."""

    def __init__(self, codes: Codes, unit: bool) -> None:
        self.unit, self.means = unit, _single(_unit(codes.mean) if unit else codes.mean)
        squares = self.means.square().sum(1)
        self.longest, self.squares = squares.max().sqrt(), torch.zeros_like(squares) if unit else squares

    def rough(self, queries: Codes) -> Tensor:
        return torch.addmm(self.squares, self._seen(queries), self.means.T, alpha=-2)

    def rounding(self, queries: Codes, at: Tensor) -> Tensor:
        # A sum of D products errs by at most D 2^-24 of the sum of their sizes (Higham 2002, section 3.1); twice that and more is taken.
        return (self.means.shape[1] + 8) * 2**-23 * (self._seen(queries).norm(dim=1) + self.longest).square()

    def exact(self, query: Codes, entries: Codes) -> Numbers:
        if self.unit:
            return 1 - _unit(entries.mean) @ _unit(query.mean)[0]
        return np.sqrt(np.square(entries.mean - query.mean).sum(1))

    def _seen(self, queries: Codes) -> Tensor:
        return _single(_unit(queries.mean) if self.unit else queries.mean)


class _Certainty:
    """The Bhattacharyya distance in nats, block by block: it is no product of what is known of query and entry."""

    def __init__(self, codes: Codes) -> None:
        self.means, self.variances = _single(codes.mean), _single(np.square(codes.std))
        logs = self.variances.log()
        self.offsets = -0.25 * logs.sum(1) - 0.5 * math.log(2) * logs.shape[1]
        self.largest, self.surest, self.logs = self.means.abs().amax(0), self.variances.amin(0), logs.abs().amax(0)

    def rough(self, queries: Codes) -> Tensor:
        return torch.stack([self._from(mean, variance) for mean, variance in zip(*self._seen(queries), strict=True)])

    def _from(self, mean: Tensor, variance: Tensor) -> Tensor:
        """How far one query is from all entries. Threads take a block each: to share out every step of one would keep them waiting."""
        each = max(1, BLOCK // len(mean))
        starts = range(0, len(self.means), each)
        means, variances, m, v = (t.numpy() for t in (self.means, self.variances, mean, variance))

        def apart(first: int) -> Numbers:
            total = variances[first : first + each] + v
            squares = np.square(means[first : first + each] - m)
            squares /= total
            squares *= 0.5
            squares += np.log(total, out=total)
            return squares.sum(1)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = torch.from_numpy(np.concatenate(list(pool.map(apart, starts))))
        return found.mul_(0.5).add_(self.offsets - 0.25 * variance.log().sum())

    def rounding(self, queries: Codes, at: Tensor) -> Tensor:
        # Both parts of a distance are at least 0, so neither is more than ``at``. Beside the sums, a difference of means errs by 2^-24 of
        # their sizes; what that does to the sum of squares is bounded after Cauchy and Schwarz.
        means, variances = self._seen(queries)
        logs = (self.logs + variances.log().abs() + 1).sum(1)
        moved = ((self.largest + means.abs()).square() / (self.surest + variances)).sum(1).sqrt()
        most = at.clamp(min=0) + logs
        return 2**-23 * ((means.shape[1] + 8) * most + moved * most.sqrt())

    def exact(self, query: Codes, entries: Codes) -> Numbers:
        total = np.square(query.std) + np.square(entries.std)
        parts = 0.25 * np.square(entries.mean - query.mean) / total + 0.5 * np.log(total / (2 * query.std * entries.std))
        return parts.sum(1).clip(0) / math.log(2)

    def _seen(self, queries: Codes) -> tuple[Tensor, Tensor]:
        return _single(queries.mean), _single(np.square(queries.std))


def _double(codes: Codes) -> Codes:
    return Codes(codes.mean.astype(np.float64), codes.std.astype(np.float64))


def _single(values: Numbers) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _unit(means: Numbers) -> Numbers:
    """Each row with the length 1; one of zeros stays so."""
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(lengths > 0, lengths, 1)
