"""Learning rates and stage weights during a training. Does not import torch.

H-SAM's (Cheng et al., CVPR 2024) depend on the step, AutoSAM's (Hu et al., arXiv 2306.13731) on the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

POWER = 0.9
WARMUP_STEPS = 250
PLATEAU_FACTOR = 0.1
PLATEAU_PATIENCE = 10
PLATEAU_FIRST_EPOCH = 10
_PLATEAU_THRESHOLD = 1e-4


def hsam_rate(step: int, *, base_rate: float, total_steps: int, warmup_steps: int = WARMUP_STEPS) -> float:
    """Learning rate that the official H-SAM training uses at a step, counted from 0.

    The official loop sets the rate after a step from that step's own number. So every rate comes one step late: the
    first two steps share one, and the base rate is used twice. The decay runs over `total_steps` from the end of the
    warm-up on, hence does not quite reach zero.

    Args:
        step: number of the step.
        base_rate: the highest rate.
        total_steps: epochs times iterations per epoch.
        warmup_steps: steps of linear increase, 0 for none.
    """
    done = max(step - 1, 0)
    if done < warmup_steps:
        return base_rate * (done + 1) / warmup_steps
    return float(base_rate * (1 - (done - warmup_steps) / total_steps) ** POWER)


def hsam_rate_share(step: int, progress: float) -> float:
    """H-SAM's schedule as a share of the highest rate, for trainings whose number of steps is only estimated.

    Args:
        step: number of the step, from 0.
        progress: done part of the training, 0 to 1. In trainings of less than 1000 steps the warm-up takes a quarter.
    """
    total = max(round(step / progress), 1) if progress > 0 else 1
    warmup = min(WARMUP_STEPS, total // 4) if step else WARMUP_STEPS
    return hsam_rate(step, base_rate=1.0, total_steps=total, warmup_steps=warmup)


def hsam_last_stage_weight(epoch: float) -> float:
    """Weight of the second stage's loss: 0.6 at the start, towards 1; the first stage has the rest.

    Args:
        epoch: counted from 0; fractions are fine.
    """
    return float(0.6 ** (0.990**epoch))


def plateau_share(epoch_losses: Sequence[float]) -> float:
    """AutoSAM's schedule as a share of the base rate: a tenth after each stretch of epochs without a lower loss.

    A loss is lower if it undercuts the lowest one so far by a ten-thousandth of it. What is fed is the loss of the
    last training batch of each epoch, as in the official training, and the first epochs do not count.

    Args:
        epoch_losses: training loss of the last batch of each finished epoch, from the first on.
    """
    share, lowest, waited = 1.0, float("inf"), 0
    for loss in epoch_losses[PLATEAU_FIRST_EPOCH:]:
        if loss < lowest * (1 - _PLATEAU_THRESHOLD):
            lowest, waited = loss, 0
            continue
        waited += 1
        if waited > PLATEAU_PATIENCE:
            share, waited = share * PLATEAU_FACTOR, 0
    return share
