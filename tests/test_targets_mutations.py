"""Mutations of the targets: each must make a named check fail, or the check is worth nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.test_targets as checks
from gbp_onnx import outputs
from gbp_onnx.targets import choose, detection, layouts, region, segmentation, similarity
from gbp_onnx.targets.scalar import Scalar

Patch = pytest.MonkeyPatch


def derivative(name: str, target: str) -> None:
    """The derivative check of one of the cases."""
    found = next(c for c in checks.CASES if c[0] == name and str(c[1]) == target)
    checks.test_the_map_is_the_derivative_of_what_the_target_names(*found)


def changed(patch: Patch, module: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Let a function of a module return something else."""
    function = getattr(module, name)
    patch.setattr(module, name, lambda *args, **more: change(function(*args, **more)))


def the_mean_is_a_sum(patch: Patch) -> None:
    def bigger(scalar: Scalar) -> Scalar:
        return dataclasses.replace(scalar, seed=np.asarray(scalar.seed) * 2)

    changed(patch, choose, "over_mask", bigger)


def the_mask_is_everywhere(patch: Patch) -> None:
    changed(patch, segmentation, "on_grid", np.ones_like)


def the_class_axis_is_the_other_one(patch: Patch) -> None:
    changed(patch, segmentation, "_class_axis", lambda axis: 2 - axis)


def the_crop_is_forgotten(patch: Patch) -> None:
    patch.setattr(region, "_centres", lambda frame, size, axis: (np.arange(size[axis]) + 0.5) / size[axis])


def objectness_is_a_constant(patch: Patch) -> None:
    def shorter(found: Any) -> Any:
        return found and dataclasses.replace(found, entries=lambda k, c: found.entries(k, c)[1:])

    changed(patch, layouts, "_with_objectness", shorter)


def rows_and_columns_are_swapped(patch: Patch) -> None:
    def turned(found: Any) -> Any:
        return found and dataclasses.replace(found, entries=lambda k, c: ((k * 7 + 4 + c, 1.0),))

    changed(patch, layouts, "_columns", turned)


def background_is_a_class(patch: Patch) -> None:
    changed(patch, layouts, "_background", lambda _: None)


def boxes_are_read_from_the_top(patch: Patch) -> None:
    patch.setattr(layouts, "_in_pixels", lambda boxes, *_: boxes * checks.SIZE)


def the_length_of_the_embedding_is_ignored(patch: Patch) -> None:
    def other(e: Any, r: Any) -> Any:
        return checks.cosine(e, r), r / np.linalg.norm(r) / np.linalg.norm(e)

    patch.setattr(similarity, "cosine_and_gradient", other)


def similarity_is_of_the_logits(patch: Patch) -> None:
    changed(patch, choose, "similar_to", lambda scalar: dataclasses.replace(scalar, as_it_is=False))


def the_same_object_is_counted_again(patch: Patch) -> None:
    changed(patch, detection, "overlaps", np.ones_like)


def a_sorted_output_stays(patch: Patch) -> None:
    patch.setattr(outputs, "_before_sorting", lambda graph, tensor: outputs.Chosen(tensor))


def boxes_are_taken_for_scores(patch: Patch) -> None:
    changed(patch, outputs, "_holds_boxes", lambda _: False)


MUTATIONS: list[tuple[Callable[[Patch], None], Callable[[Path], None]]] = [
    (the_mean_is_a_sum, lambda _: derivative("deeplab", "mask:2")),
    (the_mask_is_everywhere, lambda _: derivative("deeplab", "mask:3@0,0,16,32")),
    (the_class_axis_is_the_other_one, lambda _: derivative("segmenter_last", "mask:1")),
    (the_crop_is_forgotten, checks.test_a_mask_from_a_file_follows_the_photograph_through_the_crop),
    (objectness_is_a_constant, lambda _: derivative("yolov5", "box:1@9")),
    (rows_and_columns_are_swapped, lambda _: derivative("yolov8", "box:0@5")),
    (background_is_a_class, lambda _: checks.test_what_top1_has_become_is_said("detr", None, "class 5 is taken")),
    (boxes_are_read_from_the_top, lambda _: checks.test_tensorflows_names()),
    (the_length_of_the_embedding_is_ignored, lambda _: checks.test_similar_to_a_file_and_to_itself(_)),
    (similarity_is_of_the_logits, lambda _: checks.test_similarity_looks_at_probabilities_behind_a_head()),
    (the_same_object_is_counted_again, lambda _: checks.test_top5_of_detectors_and_segmenters()),
    (a_sorted_output_stays, lambda _: checks.test_a_tail_is_looked_through_and_said("topk", "probabilities", "TopK")),
    (boxes_are_taken_for_scores, lambda _: checks.test_boxes_that_another_output_scores_are_not_the_default()),
]


@pytest.mark.parametrize(("mutate", "check"), MUTATIONS, ids=[m.__name__ for m, _ in MUTATIONS])
def test_mutation(mutate: Callable[[Patch], None], check: Callable[[Path], None], tmp_path: Path) -> None:
    check(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(tmp_path)
