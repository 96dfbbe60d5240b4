"""The course of a run, step by step: pure functions of the step."""

import math

from detectors.training.recipe import TrainingPlan

_SIZES_AT_ONCE = 3


def learning_rate(step: int, plan: TrainingPlan) -> float:
    """The learning rate of a step (0-based): linear warm-up, then half a cosine (Loshchilov and Hutter, 2017) to `final_share`."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    share = (step - plan.warmup_steps) / max(plan.steps - plan.warmup_steps, 1)
    falling = (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return plan.learning_rate * (plan.final_share + (1 - plan.final_share) * falling)


def is_calm(step: int, plan: TrainingPlan) -> bool:
    """Whether a step is in the last stretch, where pictures come as they are met in use."""
    return step >= plan.steps * (1 - plan.calm_last)


def sizes_of(step: int, plan: TrainingPlan) -> tuple[int, ...]:
    """The input sides that a step (0-based) draws from: all that are given, or, while they grow, the largest three of those that are in."""
    sizes = tuple(sorted(plan.image_sizes))
    grown = plan.grow_first * plan.steps
    if not grown:
        return sizes
    most = min(len(sizes), 1 + int(step / grown * len(sizes)))
    return sizes[max(0, most - _SIZES_AT_ONCE) : most]


def average_decay(step: int, plan: TrainingPlan) -> float:
    """The share of the average that a step (0-based) keeps: (1 + t) / (10 + t) at first, as TensorFlow's `num_updates` has it."""
    return min(plan.ema_decay, (1 + step) / (10 + step))
