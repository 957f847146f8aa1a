"""The one training loop.

Everything random in a step follows from the seed and the step's number, so the state to resume is the weights, their averages, the
optimiser's moments and a handful of numbers.
"""

import gc
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed
from lightning_fabric import Fabric
from torch import Tensor, nn

from vlae.core.objective import RateControl, elbo, free_bits, window_only
from vlae.core.vlae import VLAE, Terms
from vlae.data.files import disk_errors
from vlae.data.imageset import ImageSet
from vlae.engine.batches import Batch, Batches
from vlae.engine.build import build
from vlae.engine.device import arithmetic, find_device
from vlae.engine.formats import check_format, load_tensors, read_json, restored, save_tensors, write_json, write_text
from vlae.engine.measure import validation_elbo
from vlae.engine.memory import keep_freed_memory
from vlae.engine.muon import Muon
from vlae.engine.run import Run
from vlae.engine.settings import Settings
from vlae.engine.track import trackers
from vlae.errors import RunError, TrainingError
from vlae.units import bits, nats

# So many skipped updates in a row end a training.
MOST_SKIPPED = 100
# How much of its two moments Adam remembers at each step: gradients change fast while a code finds its place.
ADAM = (0.9, 0.99)
# A kill loses at most so much work.
SAVE_EVERY_S = 60.0


@dataclass
class Progress:
    """Where a training stands; all of it is kept to resume."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    usual_norm: float = math.nan
    """Geometric running mean of the gradient's length."""
    code_weight: float = 1.0
    """Weight of the code's cost, where it adapts."""
    rate_bits: float = math.nan
    """Running mean of the bits of code for an image."""
    distortion_bits: float = math.nan
    """Running mean of the bits of pixels for an image."""
    best: float = math.inf
    """Lowest validation loss so far, nats an image."""
    since_best: int = 0
    """Validations since then."""
    seconds: float = 0.0
    """Time spent training."""


@dataclass
class Pace:
    """The time a step takes, from the last few; of this process only, so not kept."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    def left(self, steps: int) -> float:
        """Seconds until so many more steps are done."""
        return steps * sum(self.times) / len(self.times) if self.times else math.nan if steps else 0.0


class Told(NamedTuple):
    """What a training tells whoever watches."""

    progress: Progress
    steps: int
    seconds_left: float
    event: str
    """step, validation or checkpoint"""


Watch = Callable[[Told], None]


class Trainer:
    """A model in training: weights, averages, optimiser and progress."""

    def __init__(self, run: Run, images: ImageSet, watch: Watch = lambda told: None) -> None:
        self.run, self.images, self.watch, self.settings = run, images, watch, run.settings
        train = self.settings.train
        self.fabric = Fabric(accelerator=find_device(train.device).type, **_processes())
        self.fabric.launch()
        torch.manual_seed(train.seed)
        self.model: VLAE = build(self.settings, run.facts)
        if train.precision == "64-true":
            self.model.double()
        self.model.to(self.fabric.device)
        self.average: VLAE = build(self.settings, run.facts).to(self.fabric.device, next(self.model.parameters()).dtype)
        self.learned: list[Tensor] = list(self.model.parameters())
        self.averaged: list[Tensor] = list(self.average.parameters())
        self.batches = Batches(images, self.settings, self.model, self.fabric.global_rank, self.fabric.world_size)
        self.progress, self.pace = Progress(), Pace()
        self.control = _control(self.settings, self.model, run)

    def start(self) -> None:
        """Start from another run's weights or initialise from the first global batch, or go on from the saved state; then go to the devices."""
        if (self.run.folder / "state" / "latest.json").is_file():
            self.optimizer = self._optimizer()
            self._load()
        else:
            if self.settings.train.start is None:
                self.model.initialise(*self._on_device(self.batches.whole(0)))
            else:
                load_tensors(Run.find(self.settings.train.start).weights, dict(self.model.state_dict()))
            self.average.load_state_dict(self.model.state_dict())
            self.optimizer = self._optimizer()
        self.network, _ = self.fabric.setup(self.model, self.optimizer)
        self.trackers = trackers(self.run, self.progress.step) if self.fabric.is_global_zero else []

    def train(self, stop: Callable[[], bool] = lambda: False) -> str:
        """Run to the end; why it ended is returned: done, patience, minutes or interrupted."""
        keep_freed_memory()
        train, began, saved = self.settings.train, time.monotonic(), time.monotonic()
        while self.progress.step < train.steps:
            if self._all(stop()):
                return self._end("interrupted")
            if self._all(train.max_minutes is not None and time.monotonic() - began > 60 * train.max_minutes):
                return self._end("minutes")
            self._timed_step()
            if self.progress.step % train.validate_every == 0 or self.progress.step == train.steps:
                self._validate()
                if train.patience is not None and self.progress.since_best >= train.patience:
                    return self._end("patience")
            if self._all(time.monotonic() - saved > SAVE_EVERY_S):
                self.save()
                saved = time.monotonic()
        return self._end("done")

    def leave(self) -> None:
        """End together: a process that went first would break the connections of the others. Nothing can be trained after it."""
        if torch.distributed.is_initialized():
            self.fabric.barrier()
            # Were the wrapped model the last to hold the group, it would wait, with the lock of the interpreter held, for the group's
            # thread, which waits for that lock.
            del self.network
            gc.collect()
            torch.distributed.destroy_process_group()

    def _end(self, why: str) -> str:
        # Saved first: a validation out of turn must not decide what a resumed training takes for its best. Nor may it replace the best
        # weights, which that training would keep: it is for a run that has none yet.
        self.save()
        if not self.run.weights.is_file():
            self._validate()
        return why

    def _timed_step(self) -> None:
        before = time.perf_counter()
        self._step()
        took = time.perf_counter() - before
        self.pace.times.append(took)
        self.progress.seconds += took
        if self.progress.step % 10 == 0:
            self._tell("step")
        if self.progress.step % 50 == 0 or self.progress.step == 1:
            self._log()

    def _step(self) -> None:
        """One update: bound, gradient, and the averaged weights; an absurd gradient is skipped and counted."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.progress.step)
        # Fabric's own mixed precision would round the pixels before the model sees them.
        with arithmetic(self.settings.train.precision, self.fabric.device):
            terms: Terms = self.network(*self._on_device(self.batches(self.progress.step)), learning=True)
        self.fabric.backward(self._loss(terms) if terms.log_px_map is None else self._loss(terms) + window_only(terms))
        self._account(terms)
        norm = float(nn.utils.get_total_norm([p.grad for p in self.learned if p.grad is not None]))
        if absurd := self._is_absurd(norm):
            self.progress.skipped += 1
            self.progress.skipped_in_a_row += 1
        else:
            self.optimizer.step()
            self._average()
            self.progress.skipped_in_a_row = 0
        self._remember(norm, absurd)
        self.optimizer.zero_grad()
        self.progress.step += 1
        if self.progress.skipped_in_a_row >= MOST_SKIPPED:
            raise TrainingError(
                f"The last {MOST_SKIPPED} updates were skipped",
                rule="A gradient must be finite and not absurdly long",
                found=f"length {norm:.3g}, usually {self.progress.usual_norm:.3g}",
                do="Lower train.learning_rate, or look at the images",
            )

    def _loss(self, terms: Terms) -> Tensor:
        objective, step = self.settings.objective, self.progress.step
        warm = min(1.0, (step + 1) / objective.warmup) if objective.warmup else 1.0
        plain = objective.plain_after is not None and step >= objective.plain_after * self.settings.train.steps
        if self.control is not None and not plain:
            return elbo(terms, warm * self.control.weight)
        if objective.kind == "free_bits" and not plain:
            return free_bits(terms, self._floor(terms), warm, self._mean)
        return elbo(terms, warm)

    def _floor(self, terms: Terms) -> float:
        """The free nats of a group: of a dimension, or of a channel's places together."""
        floor = self.settings.objective.floor
        assert floor is not None
        return floor * terms.log_qz_x_parts[0, 0].numel()

    def _account(self, terms: Terms) -> None:
        p = self.progress
        both = self._mean(torch.stack([(terms.log_qz_x - terms.log_pz).mean(), -terms.log_px_z.mean()]).detach())
        kl, distortion = both.tolist()
        if self.control is not None:
            self.control = self.control.after(kl)
            p.code_weight = self.control.weight
        for name, value in (("rate_bits", bits(kl)), ("distortion_bits", bits(distortion))):
            before = getattr(p, name)
            setattr(p, name, value if not math.isfinite(before) else 0.98 * before + 0.02 * value)

    def _is_absurd(self, norm: float) -> bool:
        # The first steps after initialisation are wild by nature; only what is not finite is skipped there.
        if not math.isfinite(norm):
            return True
        return self.progress.step > 100 and norm > self.settings.train.absurd * self.progress.usual_norm

    def _remember(self, norm: float, absurd: bool) -> None:
        """Follow the usual length. An absurd one counts as the longest allowed: one says little, but many in a row are the new usual."""
        usual = self.progress.usual_norm
        if math.isfinite(norm):
            counted = self.settings.train.absurd * usual if absurd else max(norm, 1e-12)
            self.progress.usual_norm = norm if math.isnan(usual) else usual**0.98 * counted**0.02

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average forgets faster, so that it does not drag the random start along.
        decay = min(self.settings.train.ema, (1 + self.progress.step) / (10 + self.progress.step))
        torch._foreach_lerp_(self.averaged, self.learned, 1 - decay)

    def _validate(self) -> None:
        loss = -validation_elbo(self.average, self.images, self.settings)
        if not math.isfinite(loss):
            found = f"{loss} after {self.progress.step} steps"
            raise TrainingError("The validation is not finite", rule="Weights are chosen by it", found=found, do="Lower train.learning_rate")
        if loss < self.progress.best:
            self.progress.best, self.progress.since_best = loss, 0
            if self.fabric.is_global_zero:
                save_tensors(self.run.weights, self.average.state_dict(), step=str(self.progress.step))
        else:
            self.progress.since_best += 1
        self._log(validation_nats=loss)
        self._tell("validation")

    def _tell(self, event: str) -> None:
        if self.fabric.is_global_zero:
            self.watch(Told(self.progress, self.settings.train.steps, self.pace.left(self.settings.train.steps - self.progress.step), event))

    def _log(self, **more: float) -> None:
        if self.fabric.is_global_zero:
            line = {"format": 1, **asdict(self.progress), "learning_rate": self.optimizer.param_groups[0]["lr"], **more}
            finite = {name: value for name, value in line.items() if math.isfinite(value)}
            path = self.run.folder / "metrics.jsonl"
            with disk_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite) + "\n")
            for tracker in self.trackers:
                tracker.log(finite)

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over processes."""
        if self.fabric.world_size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total / self.fabric.world_size

    def _all(self, mine: bool) -> bool:
        """Whether any process says so: all must stop at the same step."""
        return self._mean(torch.tensor(float(mine), device=self.fabric.device)).item() > 0

    def _on_device(self, batch: Batch) -> Batch:
        like = next(self.model.parameters())
        return batch.mapped(lambda t: t.to(self.fabric.device, like.dtype))

    def _optimizer(self) -> torch.optim.Optimizer:
        train = self.settings.train
        if train.optimizer == "adamax":
            return torch.optim.Adamax(self.model.parameters(), lr=train.learning_rate, foreach=True)
        if train.optimizer == "muon":
            return Muon(self.model, lr=train.learning_rate, betas=ADAM)
        return torch.optim.Adam(self.model.parameters(), lr=train.learning_rate, betas=ADAM, foreach=True)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state under names of their own."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()} | {f"average.{n}": t for n, t in self.average.state_dict().items()}
        second = "exp_inf" if self.settings.train.optimizer == "adamax" else "exp_avg_sq"
        for name, parameter in self.model.named_parameters():
            nothing = {"exp_avg": torch.zeros_like(parameter), second: torch.zeros_like(parameter)}
            moments = self.optimizer.state[parameter] or {"step": torch.tensor(0.0), **nothing}
            self.optimizer.state[parameter] = moments
            tensors |= {f"{kind}.{name}": moment for kind, moment in moments.items()}
        return tensors

    def save(self) -> None:
        """Write the state; the last complete one stays until the new one is."""
        if not self.fabric.is_global_zero:
            return
        state = self.run.folder / "state"
        name = f"step-{self.progress.step}.safetensors"
        save_tensors(state / name, self._tensors())
        write_json(state / "latest.json", {"format": 1, "tensors": name, **asdict(self.progress)})
        for old in state.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)
        self._tell("checkpoint")

    def _load(self) -> None:
        path = self.run.folder / "state" / "latest.json"
        saved: dict[str, Any] = read_json(path)
        check_format(path, saved)
        try:
            name = saved.pop("tensors")
            saved.pop("format")
            self.progress = restored(Progress, saved)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise RunError(f"{path} is damaged", rule="It tells where a training stands", do="Train again") from None
        load_tensors(path.parent / str(name).rpartition("/")[2], self._tensors())
        if self.control is not None:
            self.control = self.control._replace(weight=self.progress.code_weight)
        self._forget_later_lines()

    def _forget_later_lines(self) -> None:
        """Drop what was logged after the state was saved: those steps are taken again."""
        if self.fabric.is_global_zero:
            kept = [line for line in self.run.metrics() if line["step"] <= self.progress.step]
            write_text(self.run.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def learning_rate(settings: Settings, step: int) -> float:
    """A linear rise over ``ramp`` steps, then constant, then a linear fall to zero over the last ``decay`` of the steps."""
    train = settings.train
    rise = min(1.0, (step + 1) / (train.ramp + 1))
    fall = (train.steps - step) / max(1.0, train.decay * train.steps)
    return train.learning_rate * rise * min(1.0, fall)


def _control(settings: Settings, model: VLAE, run: Run) -> RateControl | None:
    """The adaptive weight of the code's cost, where the objective has one."""
    # What a step sees and pays for: of an image that is cropped, the crop.
    size = (settings.train.crop, settings.train.crop) if settings.train.crop else run.facts.size
    if settings.objective.kind == "rate":
        assert settings.keep.bits is not None and size is not None
        images_bits = settings.keep.bits * (1 if settings.keep.code == "vector" else size[0] * size[1] / 1000)
        return RateControl(nats(images_bits), most=1e4)
    if settings.objective.kind == "soft_free_bits":
        assert settings.objective.floor is not None and size is not None
        return RateControl(settings.objective.floor * math.prod(model.code_shape(size[0], size[1])))
    return None


def _processes() -> dict[str, Any]:
    """One device, or those that torchrun has started processes for."""
    if not torch.distributed.is_torchelastic_launched():
        return {"devices": 1}
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"strategy": "ddp", "devices": here, "num_nodes": everywhere // here}
