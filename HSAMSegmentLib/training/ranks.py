"""Data-parallel training in several processes, as torchrun starts them. A single process behaves as without it.

Every rank draws the same random numbers for the combined batch and computes its part. Sums in the loss run over all
ranks, so that loss and gradients equal those of one process with the whole batch; gradients are then summed. All ranks
thus hold the same weights and random state at every step, one saved state is enough, and a training can be resumed with
another number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from HSAMSegmentLib.errors import DeviceError, HSAMSegmentError, TrainingError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_RESEED = 1_000_003

Found = TypeVar("Found")
Drawn = TypeVar("Drawn", bound=Any)  # a tensor or a list


def world_size() -> int:
    """Number of processes that train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process reports, saves and writes."""
    return rank() == 0


def local_rank() -> int:
    """Index of this process on its computer."""
    return int(os.environ.get("LOCAL_RANK", rank())) if world_size() > 1 else 0


def is_launched() -> bool:
    """Whether torchrun, or variables set by hand, request several processes."""
    return all(name in os.environ for name in _VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes within the context, if there are any.

    Args:
        device: the requested device: "auto", "cpu", "cuda" or another one.

    Yields:
        The device of this rank: with "auto" or "cuda" on CUDA machines, one GPU per local rank.

    Raises:
        DeviceError: if there are more ranks than GPUs, or the other processes cannot be reached.
    """
    if not is_launched() or world_size() > 1:
        yield device
        return
    own = _device_of_rank(device)
    try:
        dist.init_process_group("nccl" if own.startswith("cuda") else "gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"The processes of this training do not reach each other ({error}).") from error
    try:
        yield own
    finally:
        dist.destroy_process_group()


def _device_of_rank(device: str) -> str:
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return "cpu" if device == "auto" else device
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"There are {count} GPUs and more processes than that; give torchrun --nproc-per-node={count}."
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def part_of(items: Drawn) -> Drawn:
    """This rank's part of what was drawn for all ranks; everything on a single rank."""
    ranks = world_size()
    if ranks == 1:
        return items
    each = len(items) // ranks
    found: Drawn = items[rank() * each : (rank() + 1) * each]
    return found


def own_generator(generator: torch.Generator) -> torch.Generator:
    """A generator for draws that may differ between ranks; on a single rank, the given one.

    It is seeded by one draw from the shared generator, so that the shared one stays the same on all ranks.
    """
    if world_size() == 1:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator().manual_seed(seed + rank())


def separate_noise(seed: int) -> None:
    """Let dropout differ between ranks; the first rank keeps the draws of a single process."""
    if rank():
        torch.manual_seed(seed + _RESEED * rank())


class _Sum(torch.autograd.Function):
    """A sum over all ranks; each rank's gradient is that of its own summand."""

    @staticmethod
    def forward(context: Any, summand: Tensor) -> Tensor:
        """Sum over all ranks."""
        total = summand.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Pass the gradient through: `sum_gradients` sums over the ranks."""
        return gradient


def sum_over_ranks(*summands: Tensor) -> tuple[Tensor, ...]:
    """Differentiable sums over all ranks of equally shaped tensors; a single rank returns them unchanged."""
    if world_size() == 1:
        return summands
    summed: Tensor = _Sum.apply(torch.stack([item.float() for item in summands]))  # type: ignore[no-untyped-call]
    return tuple(summed.unbind())


def sum_gradients(network: nn.Module) -> None:
    """Sum the gradients of all ranks, in one message.

    Raises:
        TrainingError: if the ranks have gradients of different tensors.
    """
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not agree(len(gradients)):
        raise TrainingError("The processes train different parts of the network; start them with the same command.")
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(total.view_as(gradient))


def average_buffers(network: nn.Module) -> None:
    """Average running statistics of the batches, such as class frequencies, over all ranks."""
    if world_size() == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world_size()


def in_turn_of_computer(work: Callable[[], object]) -> None:
    """Let the first rank of each computer do work while its others wait; called by all ranks.

    Raises:
        HSAMSegmentError: the error raised by the work; on other ranks, one that reports it.
    """
    failure: HSAMSegmentError | None = None
    if local_rank() == 0:
        try:
            work()
        except HSAMSegmentError as error:
            failure = error
    if any_rank(failure is not None):
        raise failure or TrainingError("Another process of this training failed.")


def share_weights(network: nn.Module) -> None:
    """Broadcast the weights of the first rank."""
    if world_size() > 1:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def sum_counts(counts: Tensor) -> Tensor:
    """Sum integers over all ranks, int64 on the CPU."""
    if world_size() == 1:
        return counts
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    total = counts.to(device)
    dist.all_reduce(total)
    return total.cpu()


def any_rank(flag: bool) -> bool:
    """Whether the condition holds on any rank; called by all ranks."""
    return flag if world_size() == 1 else bool(sum_counts(torch.tensor([int(flag)]))[0])


def agree(number: int) -> bool:
    """Whether all ranks have the same number; called by all ranks."""
    ranks = world_size()
    if ranks == 1:
        return True
    first, squares = sum_counts(torch.tensor([number, number * number])).tolist()
    return bool(first == ranks * number and squares == ranks * number * number)


def from_first(work: Callable[[], Found]) -> Found:
    """Do work on the first rank, and broadcast its result; called by all ranks.

    Raises:
        HSAMSegmentError: the error raised by the work, on all ranks.
    """
    if world_size() == 1:
        return work()
    answer: list[Any] = [None, None]
    if is_first():
        try:
            answer[0] = work()
        except HSAMSegmentError as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    result: Found = answer[0]
    return result
