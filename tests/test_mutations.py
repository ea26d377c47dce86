"""Mutations of the engine: each must make a named check fail, or the check is worth nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import tests.test_lift as lift_tests
import tests.test_quantised as quantised_tests
import tests.test_recurrent as recurrent_tests
import tests.test_rules as rule_tests
import tests.test_vjp as vjp_tests
import tests.vjp_cases_scalar  # noqa: F401 - adds its cases to the table
from gbp_onnx import rules, sweep, target
from gbp_onnx.canonical import gates, lift, rectifiers, signedness, view
from gbp_onnx.graph import folding
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.shapes import Axis
from gbp_onnx.vjp import (
    GBP_DOMAIN,
    activation,
    careful,
    classical,
    conv,
    elementwise,
    fourier,
    indexing,
    layout,
    normalization,
    pool,
    qlinear,
    recurrent,
    registry,
    resize,
    windows,
)
from gbp_onnx.vjp.common import zeros
from tests.vjp_cases import CASES
from tests.vjp_check import check

Patch = pytest.MonkeyPatch
Check = Callable[[], None]
MUTATIONS: dict[str, tuple[Callable[[Patch], None], Check]] = {}
BY_NAME = {c.name: c for c in CASES}


def case(name: str) -> Check:
    return lambda: check(BY_NAME[name])


def fails(check: Check) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutation that `check` must notice."""

    def register(mutate: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert mutate.__name__ not in MUTATIONS
        MUTATIONS[mutate.__name__] = (mutate, check)
        return mutate

    return register


def derivative(patch: Patch, op: str, rule: Callable[..., Any], domain: str = "") -> None:
    """Put another function in the table."""
    old = registry._TABLE[domain, op]
    patch.setitem(registry._TABLE, (domain, op), [dataclasses.replace(e, rule=rule) for e in old])


def emitted(
    patch: Patch, op_type: str, change: Callable[[list[Any], dict[str, Any]], tuple[Any, dict[str, Any]]]
) -> None:
    """Change every emitted node of a kind."""
    emit = Emitter.emit

    def other(self: Emitter, op: str, inputs: Any, attrs: dict[str, Any], outputs: int = 1) -> Any:
        if op == op_type:
            inputs, attrs = change(list(inputs), dict(attrs))
        return emit(self, op, inputs, attrs, outputs)

    patch.setattr(Emitter, "emit", other)


def overwrite(op: Emitter, shape: Any, indices: Any, ct: Any, axis: int) -> Any:
    return op.ScatterElements(zeros(op, shape, op.elem_type(ct)), indices, ct, axis=axis)


papers = rule_tests.test_the_three_rules_equal_the_papers

# --- the sweep ----------------------------------------------------------------------------------------------------


@fails(case("path/several ways to the output"))
def one_of_several_cotangents_is_dropped(patch: Patch) -> None:
    keep = sweep._accumulate
    patch.setattr(sweep, "_accumulate", lambda op, cts, name: keep(op, list(cts)[:1], name))


@fails(case("Mul/tensor read twice"))
def a_tensor_read_twice_gets_one_cotangent(patch: Patch) -> None:
    keep = sweep._accumulate
    patch.setattr(sweep, "_accumulate", lambda op, cts, name: keep(op, list(cts)[-1:], name))


@fails(case("path/an output read inside"))
def a_seed_is_lost_where_others_arrive(patch: Patch) -> None:
    keep = sweep._accumulate
    patch.setattr(sweep, "_accumulate", lambda op, cts, name: keep(op, list(cts)[1:] or list(cts), name))


# --- rules and rectifiers -----------------------------------------------------------------------------------------


@fails(papers)
def the_mask_is_flipped(patch: Patch) -> None:
    patch.setattr(activation, "masked", lambda op, mask, ct: op.Where(mask, 0.0, ct))


@fails(papers)
def deconvnet_and_guided_are_swapped(patch: Patch) -> None:
    swapped = {**rules.RULES, "deconvnet": rules.RULES["guided"], "guided": rules.RULES["deconvnet"]}
    patch.setattr(rules, "RULES", MappingProxyType(swapped))


@fails(papers)
def guided_forgets_the_clamp(patch: Patch) -> None:
    patch.setattr(rules, "RULES", MappingProxyType({**rules.RULES, "guided": {}}))


@fails(papers)
def deconvnet_is_gated_by_the_input(patch: Patch) -> None:
    patch.setattr(rules, "RULES", MappingProxyType({**rules.RULES, "deconvnet": rules.RULES["guided"]}))


@fails(papers)
def the_cotangent_is_clamped_from_above(patch: Patch) -> None:
    patch.setattr(Emitter, "Relu", lambda self, ct: self.Neg(self.emit("Relu", [self.Neg(ct)], {})[0]), raising=False)


@fails(papers)
def rectifiers_are_not_found(patch: Patch) -> None:
    patch.setattr(view, "find_rectifiers", lambda graph: {})


@fails(papers)
def the_first_rectifier_is_skipped(patch: Patch) -> None:
    find = rectifiers.find_rectifiers
    patch.setattr(view, "find_rectifiers", lambda graph: dict(list(find(graph).items())[1:]))


@fails(papers)
def the_mask_is_applied_at_the_last_rectifier_only(patch: Patch) -> None:
    find = rectifiers.find_rectifiers
    patch.setattr(view, "find_rectifiers", lambda graph: dict(list(find(graph).items())[:1]))


@fails(papers)
def the_cap_is_ignored(patch: Patch) -> None:
    gate = lambda op, node: op.Greater(node.outputs[0], 0.0)  # noqa: E731
    patch.setattr(activation, "gate", gate)
    patch.setattr(rules, "gate", gate)


@fails(vjp_tests.test_kinks)
def the_gate_is_open_at_zero(patch: Patch) -> None:
    patch.setattr(activation, "gate", lambda op, node: op.GreaterOrEqual(node.outputs[0], 0.0))


@fails(lambda: rule_tests.test_every_form_of_a_capped_rectifier_is_gated_alike("Clip", "saliency"))
def the_gate_is_open_at_the_cap(patch: Patch) -> None:
    def gate(op: Emitter, node: Any) -> Any:
        return op.And(op.Greater(node.outputs[0], 0.0), op.LessOrEqual(node.outputs[0], node.attrs["cap"]))

    patch.setattr(activation, "gate", gate)


@fails(lambda: rule_tests.test_thresholded("guided", -0.7))
def a_negative_threshold_is_read_off_the_output(patch: Patch) -> None:
    patch.setattr(rules, "gate", lambda op, node: op.Greater(node.outputs[0], 0.0))


@fails(lambda: rule_tests.test_a_cap_does_not_swallow_a_rectifier_that_others_read("Add(c, r) -> y"))
def a_shared_rectifier_is_swallowed_by_a_cap(patch: Patch) -> None:
    patch.setattr(rectifiers, "_only_reader", lambda graph, tensor: True)


@fails(lambda: rule_tests.test_near_misses_are_no_rectifiers("Max above 0"))
def any_bound_makes_a_rectifier(patch: Patch) -> None:
    patch.setitem(rectifiers._FORMS, "Max", lambda graph, node: rectifiers.Rectifier(node, "Max", node.inputs[0]))


@fails(lambda: rule_tests.test_near_misses_are_no_rectifiers("Where, the wrong way round"))
def the_sign_of_a_test_is_ignored(patch: Patch) -> None:
    test = rectifiers._sign_test
    patch.setattr(rectifiers, "_sign_test", lambda graph, condition, x: abs(test(graph, condition, x)))


@fails(rule_tests.test_a_bound_that_widens_the_result_is_no_rectifier)
def a_bound_may_widen(patch: Patch) -> None:
    patch.setattr(rectifiers, "_widens", lambda graph, bound, x: False)


@fails(rule_tests.test_what_is_not_finite_stays_out_of_masked_places)
def masks_multiply(patch: Patch) -> None:
    patch.setattr(activation, "masked", lambda op, mask, ct: op.Mul(ct, op.Cast(mask, to=1)))


@fails(lambda: rule_tests.test_rectify("LeakyRelu", ("leaky",)))
def rectify_does_nothing(patch: Patch) -> None:
    keep = rules.overrides
    patch.setattr("gbp_onnx.gradient.overrides", lambda rule, rectify=(): keep(rule))


@fails(rule_tests.test_prelu_slopes_keep_their_gradient_under_rectify)
def a_clamped_slope_loses_its_gradient(patch: Patch) -> None:
    keep = rules.clamped
    patch.setattr(rules, "clamped", lambda op, node, ct: keep(op, node, ct)[:1])


@fails(papers)
def the_head_is_not_skipped(patch: Patch) -> None:
    patch.setattr(target, "find_head", lambda graph, output: None)


@fails(papers)
def the_target_is_ignored(patch: Patch) -> None:
    emitted(patch, "Less", lambda i, a: ([i[0], 99], a))


# --- derivatives --------------------------------------------------------------------------------------------------


@fails(case("Add/b broadcast by rank"))
def broadcasting_is_not_undone(patch: Patch) -> None:
    patch.setattr(elementwise, "unbroadcast", lambda op, ct, operand, result: ct)


@fails(case("Mul/both broadcast"))
def broadcasting_is_undone_over_the_first_axis_only(patch: Patch) -> None:
    emitted(patch, "ReduceSum", lambda i, a: (i, {**a, "axes": a["axes"][:1]} if a.get("axes") else a))


@fails(case("Sub/same shape"))
def a_minus_sign_is_lost(patch: Patch) -> None:
    derivative(patch, "Sub", elementwise.add)


@fails(lambda: vjp_tests.test_ties_of_several_inputs_are_split_equally("Max"))
def ties_are_not_split(patch: Patch) -> None:
    patch.setattr(Emitter, "Div", lambda self, a, b: a, raising=False)


@fails(lambda: vjp_tests.test_ties_of_a_window_go_to_the_first("ReduceMax", {"axes": [2, 3]}))
def the_last_maximum_wins(patch: Patch) -> None:
    emitted(patch, "ArgMax", lambda i, a: (i, {**a, "select_last_index": 1}))


@fails(case("MaxPool/overlapping"))
def overlapping_windows_overwrite_each_other(patch: Patch) -> None:
    patch.setattr(pool, "scatter_add", overwrite)


@fails(lambda: vjp_tests.test_a_window_wholly_in_the_padding_sends_nothing(0, False))
def empty_windows_are_overlooked(patch: Patch) -> None:
    patch.setattr(pool, "window_can_be_empty", lambda axis: False)


@fails(case("MaxPool/column-major indices"))
def column_major_indices_are_taken_as_they_are(patch: Patch) -> None:
    derivative(patch, "MaxPool", _max_pool_by_its_own_indices)


def _max_pool_by_its_own_indices(op: Emitter, node: Any, ct: Any) -> Any:
    node.attrs["storage_order"] = 0
    return pool.max_pool(op, node, ct)


@fails(case("AveragePool/padded"))
def padding_is_counted(patch: Patch) -> None:
    patch.setattr(pool, "_per_position", lambda op, node, ct, w: op.Mul(ct, 1 / int(np.prod(w.kernel))))


@fails(case("AveragePool/padded, count_include_pad"))
def padding_is_not_counted(patch: Patch) -> None:
    emitted(patch, "AveragePool", lambda i, a: (i, {**a, "count_include_pad": 0}))


@fails(case("LRN/size 3"))
def the_neighbours_of_a_channel_are_left_out(patch: Patch) -> None:
    derivative(patch, "LRN", lambda op, node, ct: (op.Mul(ct, op.Div(node.outputs[0], node.inputs[0])),))


@fails(case("BatchNormalization/stored"))
def the_batch_normalization_factor_is_dropped(patch: Patch) -> None:
    derivative(patch, "BatchNormalization", lambda op, node, cts: (cts[0],))


@fails(case("InstanceNormalization/2-D space"))
def the_statistics_are_taken_for_constants(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.normalization.normalized_cotangent", lambda op, x, g, axes, epsilon: (g, x))


@fails(case("ReduceProd/zeros"))
def zeros_of_a_product_are_divided_by(patch: Patch) -> None:
    derivative(patch, "ReduceProd", lambda op, node, ct: (op.Div(op.Mul(ct, node.outputs[0]), node.inputs[0]),))


@fails(case("ReduceMean/axes [1] fed, keepdims 0"))
def every_axis_is_taken_for_reduced(patch: Patch) -> None:
    whole = lambda op, node: op.ConstantOfShape(op.Shape(op.shape(node.inputs[0])), value=np.ones(1, np.bool_))  # noqa: E731
    patch.setattr("gbp_onnx.vjp.reduction._is_reduced", whole)


@fails(case("Einsum/iij,jk->ik, ((3, 3, 2), (2, 4))"))
def a_repeated_index_is_taken_for_two(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.einsum.masked", lambda op, mask, ct: op.Expand(ct, op.Shape(mask)))


@fails(case("CumSum/axis 0, exclusive"))
def a_running_sum_forgets_that_it_is_exclusive(patch: Patch) -> None:
    emitted(patch, "CumSum", lambda inputs, attrs: (inputs, {**attrs, "exclusive": 0}))


@fails(case("NegativeLogLikelihoodLoss/mean, ignored 255"))
def ignored_targets_are_counted(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.loss.masked", lambda op, mask, ct: op.Mul(op.Cast(mask, to=1), op.Add(ct, 1.0)))


@fails(case("FusedMatMul/(3, 2) (3, 4) {'transA': 1, 'alpha': 0.3}"))
def the_factor_of_a_fused_product_is_dropped(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.microsoft.scaled", lambda op, ct, factor: ct)


@fails(case("SkipLayerNormalization/same shape"))
def the_mean_of_a_skip_is_taken_for_constant(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.microsoft.normalized_cotangent", normalization.scaled_by_root_mean_square)


@fails(case("Softmax/axis 1"))
def softmax_is_taken_element_by_element(patch: Patch) -> None:
    derivative(patch, "Softmax", activation.sigmoid)


@fails(case("Clip/both bounds"))
def a_bound_is_ignored(patch: Patch) -> None:
    emitted(patch, "LessOrEqual", lambda i, a: ([i[0], 1e9], a))


@fails(case("Conv/strided, a row left over"))
def output_padding_is_forgotten(patch: Patch) -> None:
    emitted(patch, "ConvTranspose", lambda i, a: (i, {k: v for k, v in a.items() if k != "output_padding"}))


@fails(case("Conv/dilated"))
def dilations_are_forgotten(patch: Patch) -> None:
    emitted(patch, "ConvTranspose", lambda i, a: (i, {k: v for k, v in a.items() if k != "dilations"}))


@fails(case("Conv/SAME_LOWER, stride 2"))
def upper_and_lower_are_swapped(patch: Patch) -> None:
    keep = windows.same_pads
    patch.setattr(
        windows, "same_pads", lambda size, reach, stride, upper, gaps: keep(size, reach, stride, not upper, gaps)
    )


@fails(case("Conv/asymmetric pads"))
def begin_pads_are_forgotten(patch: Patch) -> None:
    patch.setattr(windows, "begin_pads", lambda op, w, x: op.constant([0] * len(w.axes)))


@fails(case("Conv/grouped"))
def groups_of_the_weight_are_forgotten(patch: Patch) -> None:
    keep = conv.correlate
    patch.setattr(conv, "correlate", lambda op, data, other, w, group: keep(op, data, other, w, 1))


@fails(case("ConvTranspose/output_shape, odd"))
def pads_of_a_transposed_convolution_are_swapped(patch: Patch) -> None:
    def swapped(size: Any, kernel: int, stride: int = 1, dilation: int = 1, begin: int = 0, end: int = 0) -> Axis:
        return Axis(size, kernel, stride, dilation, end, begin)

    patch.setattr(conv, "Axis", swapped)


@fails(case("MatMul/batch of one x batch"))
def batch_axes_are_not_summed(patch: Patch) -> None:
    patch.setattr("gbp_onnx.vjp.linear._batch_summed", lambda op, product, like, other: product)


@fails(case("Gemm/transA=1 transB=1"))
def a_transposition_is_lost(patch: Patch) -> None:
    emitted(patch, "Gemm", lambda i, a: (i, {**a, "transA": 0}))


@fails(case("Gather/axis 0, repeated and negative"))
def gathered_slices_overwrite_each_other(patch: Patch) -> None:
    patch.setattr(layout, "scatter_add", overwrite)


@fails(case("GatherElements/repeated and negative"))
def gathered_elements_overwrite_each_other(patch: Patch) -> None:
    patch.setattr(indexing, "scatter_add", overwrite)


@fails(case("GatherND/elements"))
def gathered_points_overwrite_each_other(patch: Patch) -> None:
    emitted(patch, "ScatterElements", lambda i, a: (i, {"axis": a["axis"]}))


@fails(case("Transpose/perm"))
def the_permutation_is_not_inverted(patch: Patch) -> None:
    derivative(patch, "Transpose", lambda op, node, ct: (op.Transpose(ct, perm=node.attrs["perm"]),))


@fails(case("Concat/axis 1"))
def the_seams_are_in_another_order(patch: Patch) -> None:
    keep = layout.concat
    derivative(patch, "Concat", lambda op, node, ct: tuple(reversed(keep(op, node, ct))))


@fails(case("Pad/reflect"))
def reflected_values_are_lost(patch: Patch) -> None:
    derivative(patch, "Pad", lambda op, node, ct: (op.Pad(ct, op.Neg(node.inputs[1])),))


@fails(case("Slice/starts far below, step -1"))
def slices_start_as_in_python(patch: Patch) -> None:
    patch.setattr(folding, "slice_positions", lambda start, end, step, size: range(size)[start:end:step])


@fails(case("Resize/scale that keeps the size"))
def an_axis_that_keeps_its_size_is_copied(patch: Patch) -> None:
    patch.setattr(resize, "_rows", lambda op, x, y, scale: op.constant(np.ones(1, np.float32)))


@fails(case("ReduceMean/axes [0, 2], keepdims 0"))
def the_mean_is_a_sum(patch: Patch) -> None:
    derivative(patch, "ReduceMean", registry._TABLE["", "ReduceSum"][0].rule)


@fails(case("Silu/sigmoid second"))
def silu_is_a_gate(patch: Patch) -> None:
    derivative(patch, "Silu", lambda op, node, ct: (op.Mul(ct, node.attrs["sigmoid"]),), GBP_DOMAIN)


# --- quantisation -------------------------------------------------------------------------------------------------

DEPLOYED = quantised_tests.test_the_forward_stays_on_the_deployed_integers


def network(scheme: str, rule: str = "guided") -> Check:
    return lambda: quantised_tests.test_a_network_agrees_with_the_oracle(scheme, rule)


@fails(network("qdq_u8"))
def no_quantiser_is_a_rectifier(patch: Patch) -> None:
    patch.setattr(gates, "_is_rectifier", lambda graph, quantizer, non_negative: False)


@fails(network("operators_u8"))
def every_quantiser_that_begins_at_0_is_a_rectifier(patch: Patch) -> None:
    patch.setattr(gates, "_is_rectifier", lambda graph, quantizer, non_negative: quantizer.begins_at_zero(graph))


@fails(
    lambda: quantised_tests.test_gates(
        np.int8, 0, quantised_tests.RELU, [-1.0, 0.2, 0.5, 63.0, 63.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]
    )
)
def a_relu_before_a_quantiser_is_forgotten(patch: Patch) -> None:
    patch.setattr(gates, "_absorbed", lambda graph, quantizer, rectifiers: None)


@fails(quantised_tests.test_the_last_quantiser_never_gates)
def the_last_quantiser_gates(patch: Patch) -> None:
    patch.setattr(target, "open_quantizers", lambda graph, output, head: {})


@fails(network("operators_s8_per_channel", "saliency"))
def scales_are_forgotten(patch: Patch) -> None:
    patch.setattr(qlinear, "rescaled", lambda op, ct, over, under: ct)


@fails(network("qdq_u8", "saliency"))
def saturation_is_forgotten(patch: Patch) -> None:
    derivative(patch, "Saturation", lambda op, node, ct: (ct,), GBP_DOMAIN)
    derivative(
        patch,
        "Rectifier",
        lambda op, node, ct: (op.Where(op.Greater(op.Cast(node.attrs["q"], to=1), 0.0), ct, 0.0),),
        GBP_DOMAIN,
    )


@fails(lambda: DEPLOYED("qdq_s8"))
def int8_stays_int8(patch: Patch) -> None:
    patch.setattr(signedness, "_is", lambda node, op: False)


@fails(lambda: DEPLOYED("qdq_u8"))
def what_only_quantisers_read_is_read(patch: Patch) -> None:
    patch.setattr(careful, "_value_again", lambda op, y, op_type: None)


@fails(lambda: DEPLOYED("dynamic"))
def scales_found_while_running_are_read(patch: Patch) -> None:
    patch.setattr(careful, "_scale_found_again", lambda op, tensor: None)


@fails(lambda: DEPLOYED("qdq_u8"))
def indices_are_taken_from_the_quantised_pool(patch: Patch) -> None:
    patch.setattr(pool, "_is_quantised", lambda op, node: False)


# --- cells, Fourier transforms, models of scikit-learn ---------------------------------------------------------------


@fails(case("LSTM/reverse"))
def time_runs_forward_in_reverse(patch: Patch) -> None:
    keep = recurrent._direction
    patch.setattr(
        recurrent, "_direction", lambda line, node, given, chosen, backwards: keep(line, node, given, chosen, False)
    )


@fails(case("RNN/forward, lengths"))
def sequences_never_end(patch: Patch) -> None:
    keep = recurrent._running

    def always(line: Any, given: Any) -> Any:
        runs = keep(line, given)
        return line.Or(runs, line.Not(runs))

    patch.setattr(recurrent, "_running", always)


@fails(case("GRU/forward, linear_before_reset"))
def the_reset_comes_before_the_product(patch: Patch) -> None:
    keep = recurrent.gru_step
    patch.setitem(
        recurrent.STEPS, "GRU", lambda line, cell, *rest: keep(line, dataclasses.replace(cell, attrs={}), *rest)
    )


@fails(case("GRU/forward, clip"))
def a_cell_is_not_clipped(patch: Patch) -> None:
    patch.setattr(recurrent.Cell, "clipped", lambda self, line, x: x)


@fails(case("LSTM/alphas go to those that take one"))
def alphas_are_not_read(patch: Patch) -> None:
    keep = recurrent._activation
    patch.setattr(recurrent, "_activation", lambda name, _, beta: keep(name, recurrent._ALPHA.get(name), beta))


@fails(lambda: recurrent_tests.test_a_cells_relu_is_gated_in_every_step("guided"))
def cells_know_no_rule(patch: Patch) -> None:
    patch.setattr(sweep, "partial", lambda f, rules: lambda *arguments: f(*arguments, rules={}))


@fails(case("DFT/complex, opset 17"))
def a_transform_goes_back_in_its_own_direction(patch: Patch) -> None:
    emitted(patch, "DFT", lambda inputs, attrs: (inputs, {**attrs, "inverse": 1 - attrs.get("inverse", 0)}))


@fails(case("DFT/inverse one-sided, None points"))
def every_bin_counts_once(patch: Patch) -> None:
    patch.setattr(fourier, "_twins", lambda op, points, size, along, ct: op.constant(1.0, op.elem_type(ct)))


@fails(case("STFT/real, one-sided, window"))
def an_absent_bin_is_not_filled_up(patch: Patch) -> None:
    patch.setattr(fourier._Axis, "resized", lambda self, op, tensor, size: tensor)


@fails(case("Pad/differentiated value"))
def a_padding_value_gets_all_of_the_cotangent(patch: Patch) -> None:
    patch.setattr(layout, "_sum_of_padding", lambda op, ct, x, pads, fill: op.ReduceSum(ct, axes=[0, 1], keepdims=0))


@fails(case("LinearClassifier/SOFTMAX"))
def a_linear_models_softmax_is_left_out(patch: Patch) -> None:
    patch.setattr(classical, "_before_transform", lambda op, node, ct, y: ct)


# --- old opsets ---------------------------------------------------------------------------------------------------


@fails(lambda: lift_tests.test_lifted_exactly("Softmax", 9, (lift_tests.IMAGE,), {"axis": 1}, False))
def the_axis_of_an_old_softmax_is_kept(patch: Patch) -> None:
    patch.setitem(lift._ADAPTERS, "Softmax", lift._Adapter(13, lambda c: c.done()))


@fails(
    lambda: lift_tests.test_lifted_exactly(
        "Resize", 10, (lift_tests.IMAGE, lift_tests._f(1, 1, 0.7, 1)), {"mode": "nearest"}, False
    )
)
def an_old_resize_rounds_down(patch: Patch) -> None:
    keep = lift._as_resize
    patch.setattr(lift, "_as_resize", lambda c, scales, rounding: keep(c, scales, "floor"))


@fails(lift_tests.test_branches_are_lifted_too)
def branches_are_left_alone(patch: Patch) -> None:
    patch.setattr(lift, "_subgraphs", lambda node: [])


def noticed(name: str, mutate: Callable[[Patch], None], must_fail: Check, patch: Patch) -> None:
    """Assert that a check holds, and fails with the mutation."""
    must_fail()
    mutate(patch)
    try:
        must_fail()
    except (AssertionError, pytest.fail.Exception):
        return
    except Exception as error:  # a graph that ONNX Runtime or onnx refuses is noticed too; a broken mutation is not
        assert type(error).__module__.startswith(("onnx", ort.__name__)), repr(error)
        return
    raise AssertionError(f"nothing noticed that {name.replace('_', ' ')}")


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed(name, *MUTATIONS[name], monkeypatch)
