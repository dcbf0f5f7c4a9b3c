"""Check a pretext method against its contract on a few slices before it is trained.

The check works on copies of the method with their own random generators, so it does not change the training.
"""

import copy
import inspect
import os
import random
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kidney_ssl.engine.batches import seeded
from kidney_ssl.engine.device import memory_errors
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.methods.base import Picture, Pretext, PretextBatch
from kidney_ssl.models.weights import encoder_state
from kidney_ssl.pretext import Shown

SLICES = 4  # slices used, of a training batch and of validation
RATE = 1e-3  # learning rate of the update between the two steps, whose weights must differ
ROUNDING = 1e-3  # tolerance for a picture's grey values outside their range
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
INTERNAL = frozenset(vars(nn.Module()))  # attributes that torch keeps in every module
Given = Tensor | PretextBatch


def preflight(method: Pretext, train: Shown, validation: Shown, rows: Tensor, context: TrainingContext) -> None:
    """Take two steps, validate and draw pictures with copies of a method that is about to be trained.

    The second step is taken twice: by the copy that took the first, and by a fresh copy that loads its `state_dict`,
    as after a resume. Both must give the same result.

    Args:
        method: the method with its initial weights; it is not changed.
        train: the method's input from the training pool.
        validation: the method's input from the validation slices.
        rows: (B,) row numbers of a training batch, of which the first are used.
        context: device and precision of the training.

    Raises:
        InputError: the method breaks its contract; one line that names the file.
    """
    look = _Look(method, context)
    chance = _global_chance()
    given = train(train.slices.batch(rows[:SLICES]))
    held = validation(validation.slices.batch(torch.arange(min(SLICES, len(validation.slices)))))
    with memory_errors(context.label):
        with look.at("a copy of it"):
            going, resumed = (copy.deepcopy(method).to(context.fabric.device) for _ in range(2))
        look.exported(going)
        look.step(going, given, 0)
        look.evaluation(going, held)
        look.hooks(going)
        if _global_chance() != chance:
            look.refuse("draws from a global generator (dropout does too); draw from the generator that is given")
        with look.at("load_state_dict"):
            resumed.load_state_dict(going.state_dict())
        expected, found = look.step(going, given, 1), look.step(resumed, given, 1)
    exact = context.fabric.device.type == "cpu"  # a GPU's sums may differ in their last bits
    if outside := _first_difference(_outside(going), _outside(resumed), exact):
        look.refuse(f"`{outside}` changes in training and is in no state_dict; register it as a buffer")
    if different := _first_difference(expected, found, exact):
        look.refuse(f"step gives another {different} after its state_dict was restored; keep all state in buffers")


def require_encoder(method: Pretext, label: str) -> None:
    """Refuse a method without a network called `encoder`."""
    if not isinstance(getattr(method, "encoder", None), nn.Module):
        raise InputError(
            f"{label}: {_file(method)}: has no `self.encoder`; make one in __init__, see docs/new_method.md"
        )


def broken_picture(name: str, picture: Picture) -> str | None:
    """What is wrong with a picture, or None if it can be drawn."""
    if Path(f"{name}.png").name != f"{name}.png":
        return "its name is no file's name"
    images, columns = picture.images, picture.columns
    if images.ndim != 4 or images.shape[1] != len(columns):
        return f"images of shape {tuple(images.shape)} for {len(columns)} columns, not (rows, columns, H, W)"
    if not (images.isfinite().all() and images.min() >= -ROUNDING and images.max() <= 1 + ROUNDING):
        return "values outside of [0, 1]"
    outlined, place = picture.outlined, (images.shape[0], *images.shape[2:])
    if outlined is not None and (outlined.shape != place or outlined.dtype != torch.bool):
        return f"`outlined` is {outlined.dtype} of shape {tuple(outlined.shape)}, not bool of {place}"
    return None


class _Look:
    """The single checks of one method; each raises an InputError if it fails."""

    def __init__(self, method: Pretext, context: TrainingContext) -> None:
        self.fabric, self.seed = context.fabric, context.seed
        self.file = _file(method)
        self.where = f"{context.label}: {self.file}"

    def refuse(self, what: str) -> None:
        raise InputError(f"{self.where}: {what}; see docs/new_method.md")

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Turn an exception in the block into an InputError that names the failing line of the method's file."""
        try:
            yield
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if os.path.relpath(frame.filename) == self.file]
            line = f":{lines[-1]}" if lines else ""
            message = one_line(str(error))
            raise InputError(f"{self.where}{line}: {what} fails ({type(error).__name__}: {message})") from error

    def exported(self, method: Pretext) -> None:
        """Check that the exported module has the encoder's parameter names and shapes."""
        with self.at("exported"):
            states = [encoder_state(module) for module in (method.encoder, method.exported)]
        encoder, found = ({name: tuple(tensor.shape) for name, tensor in state.items()} for state in states)
        if wrong := [name for name in {**encoder, **found} if encoder.get(name) != found.get(name)]:
            self.refuse(f"`exported` differs from `encoder` in names or shapes ({wrong[0]})")

    def step(self, method: Pretext, given: Given, number: int) -> dict[str, Tensor]:
        """Take a step as the training loop does and return its loss and metrics."""
        generator = seeded(self.seed, "preflight", number, device=self.fabric.device)
        method.train()
        method.zero_grad()
        with self.at("step"), self.fabric.autocast():
            answer = method.step(given, generator)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            self.refuse("step must return the loss and a dict of metrics")
        loss, metrics = answer
        if "loss" in metrics:
            self.refuse("step must not call a metric `loss`, which is the loss's own name")
        values = {"loss": loss, **metrics}
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.shape != ():
                self.refuse(f"step gives a `{name}` {_shape(value)}, which must be a tensor of shape (): take its mean")
            if not value.isfinite():
                self.refuse(f"step gives a `{name}` of {value.item()}, which must be finite")
        if not loss.requires_grad:
            self.refuse("step gives a loss without gradient")
        with self.at("backward"):
            torch.autograd.backward(loss)
        if all(parameter.grad is None for parameter in method.encoder.parameters()):
            self.refuse("no gradient of the loss reaches `encoder`")
        self.update(method)
        with self.at("after_step"), torch.no_grad():
            method.after_step(number, 2)
        return {name: value.detach() for name, value in values.items()}

    def update(self, method: Pretext) -> None:
        """Update the parameters, after checking that the parameter groups have all of them."""
        with self.at("parameter_groups"):
            groups = [{"params": list(group.parameters)} for group in method.parameter_groups()]
            optimizer = torch.optim.SGD(groups, lr=RATE)
        grouped = {id(parameter) for group in groups for parameter in group["params"]}
        for name, parameter in method.named_parameters():
            if parameter.grad is not None and id(parameter) not in grouped:
                self.refuse(f"`{name}` has a gradient and is in none of parameter_groups")
        optimizer.step()

    def evaluation(self, method: Pretext, given: Given) -> None:
        """Check that validation and pictures work and change nothing."""
        before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        images = given.images if isinstance(given, PretextBatch) else given
        method.eval()
        draws = [seeded(self.seed, "preflight", what, device=self.fabric.device) for what in (2, 3)]
        with torch.inference_mode():
            with self.at("validate"), self.fabric.autocast():
                metrics = method.validate(given, draws[0])
            self.metrics(metrics, len(images))
            with self.at("pictures"):
                for name, picture in dict(method.pictures(given, draws[1])).items():
                    if problem := broken_picture(name, picture):
                        self.refuse(f"pictures: `{name}`: {problem}")
        for name, tensor in method.state_dict().items():
            if not torch.equal(before[name], tensor):
                self.refuse(f"`{name}` is changed by validate or pictures, which must change nothing")

    def metrics(self, metrics: Any, count: int) -> None:
        """Check that each validation metric has one finite value per slice."""
        if not isinstance(metrics, Mapping) or "loss" not in metrics:
            self.refuse("validate must return a dict with a `loss`")
        for name, values in metrics.items():
            if not isinstance(values, Tensor) or values.shape != (count,):
                self.refuse(f"validate gives `{name}` {_shape(values)}, which must be one value a slice, ({count},)")
            if count > 1 and not values.isfinite().all():  # one slice has no standard deviation
                self.refuse(f"validate gives a `{name}` that is not finite")

    def hooks(self, method: Pretext) -> None:
        """Check that the exported module has no hooks."""
        for network in (method.encoder, method.exported):
            for name, module in network.named_modules():
                if any(getattr(module, kind) for kind in HOOKS):
                    self.refuse(
                        f"a hook is left in the encoder ({name or 'itself'}); remove it where it was registered"
                    )


def _file(method: Pretext) -> str:
    return os.path.relpath(inspect.getfile(type(method)))


def _shape(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"that is a {type(value).__name__}"


def _global_chance() -> tuple[Any, ...]:
    """State of all global random generators."""
    legacy = np.random.get_state(legacy=False)["state"]["key"].tobytes()  # noqa: NPY002 - to see whether a method drew from it
    gpus = (
        tuple(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    )
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), legacy, gpus


def _outside(method: nn.Module) -> dict[str, Any]:
    """Attributes of a method's modules that are not in its `state_dict`, by name."""
    found: dict[str, Any] = {}
    for prefix, module in method.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            continue  # the module stores extra state itself
        held = {name: value for name, value in vars(module).items() if name not in INTERNAL}
        held |= {name: module.get_buffer(name) for name in module._non_persistent_buffers_set}
        found |= {f"{prefix}.{name}".lstrip("."): value for name, value in held.items()}
    return found


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any], exact: bool) -> str | None:
    seen: set[int] = set()
    names = {**one, **other}
    return next((name for name in names if not _same(one.get(name), other.get(name), exact, seen)), None)


# How to read the state of objects of these types.
STATES: dict[type, Callable[[Any], Any]] = {
    torch.Generator: lambda generator: generator.get_state(),
    random.Random: lambda generator: generator.getstate(),
    np.random.Generator: lambda generator: generator.bit_generator.state,
    np.ndarray: torch.from_numpy,
    deque: list,
}


def _same(one: Any, other: Any, exact: bool, seen: set[int]) -> bool:  # noqa: PLR0911 - a case for each type
    """Whether two values are equal; values of unknown types count as equal."""
    if one is other or id(one) in seen:
        return True
    if type(one) is not type(other):
        return False
    seen.add(id(one))
    if type(one) in STATES:
        one, other = (STATES[type(value)](value) for value in (one, other))
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        tolerance = 0.0 if exact else 1e-3
        return torch.allclose(one.detach(), other.detach(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_same(*pair, exact, seen) for pair in pairs)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key], exact, seen) for key in one)
    if isinstance(one, (bool, int, float, complex, str, bytes, set, np.generic)):
        return bool(one == other) or one != one  # noqa: PLR0124 - NaN
    if isinstance(one, type) or (callable(one) and not isinstance(one, nn.Module)):
        return True  # a class or a function has no state to compare
    mine, others = (getattr(value, "__dict__", {}) for value in (one, other))
    return _same(mine, others, exact, seen)
