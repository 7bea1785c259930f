"""Bytes on the wire and FLOPs, read from programs: texts small enough to count by hand, and compiled ones."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.optimization import ademamix, optimizer_chain
from apertus_jax.training import Objective
from apertus_jax.training.planning.ahead_of_time import part_of_model
from apertus_jax.training.planning.collectives import collectives_of, wire_by_axes, wire_by_kind
from apertus_jax.training.planning.hlo_flops import step_flops
from apertus_jax.training.planning.hlo_text import read_hlo
from apertus_jax.training.program import make_program

MESH = {"data": 2, "fsdp": 4, "tensor": 1, "context": 1}
LOOP = """HloModule step, is_scheduled=true

%body (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %p = (s32[], bf16[8,16]{1,0:T(8,128)(2,1)}) parameter(0)
  %w = bf16[2,16]{1,0} get-tuple-element(%p), index=1
  %start = (bf16[2,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%w), replica_groups=[2,4]<=[8], dimensions={0}
  MEANWHILE
  %done = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather-done(%start), metadata={op_name="jit(f)/layers/up"}
  ROOT %t = (s32[], bf16[8,16]) tuple(%i, %done)
}

%condition (p: (s32[], bf16[8,16])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%fused (q: f32[8,4]) -> f32[2,4] {
  %q = f32[8,4]{1,0} parameter(0)
  ROOT %m = f32[8,4]{1,0} multiply(%q, %q)
}

ENTRY %main (a: bf16[2,16]) -> f32[] {
  %a = bf16[2,16]{1,0} parameter(0)
  %loop = (s32[], bf16[8,16]) while(%init), condition=%condition, body=%body
  GROUPED
}
"""
REDUCE = "%r = f32[10]{0} all-reduce(%a), channel_id=2, replica_groups=GROUPS, to_apply=%add"


def program(meanwhile="", grouped="%z = f32[] constant(0)"):
    return read_hlo(LOOP.replace("MEANWHILE", meanwhile).replace("GROUPED", grouped))


def test_trips_of_loops_multiply_what_is_gathered():
    (gather,) = collectives_of(program(), MESH)
    assert (gather.kind, gather.axes, gather.group, gather.times) == ("all-gather", "fsdp", 4, 5)
    assert gather.size_in_bytes == 8 * 16 * 2
    assert gather.wire_bytes == 5 * 8 * 16 * 2 * 3 / 4


@pytest.mark.parametrize(
    ("meanwhile", "asynchronous"),
    [
        ("%f = f32[8,4]{1,0} fusion(%q), kind=kLoop, calls=%fused", True),
        ("%c = bf16[2,16]{1,0} copy(%w)", False),
        ("", False),
    ],
)
def test_a_gather_is_asynchronous_with_work_before_its_end(meanwhile, asynchronous):
    (gather,) = collectives_of(program(meanwhile), MESH)
    assert gather.asynchronous is asynchronous
    assert wire_by_axes([gather], asynchronous=True) == ({"fsdp": gather.wire_bytes} if asynchronous else {})


@pytest.mark.parametrize(
    ("groups", "axes", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", "fsdp", 4),
        ("{{0,4},{1,5},{2,6},{3,7}}", "data", 2),
        ("[4,2]<=[2,4]T(1,0)", "data", 2),
        ("[1,8]<=[8]", "data×fsdp", 8),
        ("{}", "data×fsdp", 8),
        ("mesh['a'=2,'b'=4] {'b'}", "fsdp", 4),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", "fsdp", 4),
        ("mesh['a'=8] {'a':(2)4}", "fsdp", 4),
        ("mesh['a'=8] {'a':(1)2}", "data", 2),
        ("{{0},{1},{2},{3},{4},{5},{6},{7}}", "", 1),
    ],
)
def test_every_spelling_of_groups_finds_its_mesh_axes(groups, axes, size):
    reduce = collectives_of(program(grouped=REDUCE.replace("GROUPS", groups)), MESH)[0]
    assert (reduce.axes, reduce.group) == (axes, size)
    assert reduce.wire_bytes == 2 * 40 * (size - 1) / size


def test_an_all_reduce_of_a_shard_among_zeros_is_a_gather():
    grouped = (
        "%u = f32[8,4]{1,0} dynamic-update-slice(%zeros, %a, %i)\n"
        "  %r = f32[8,4]{1,0} all-reduce(%u), channel_id=2, replica_groups={}, to_apply=%add\n"
        '  %d = f32[8]{0} fusion(%r), kind=kOutput, calls=%fused, metadata={op_name="jit(f)/layers/attention/query"}'
    )
    reduce = next(each for each in collectives_of(program(grouped=grouped), MESH) if each.kind == "all-reduce")
    assert reduce.made_of_gather and reduce.op_name == "jit(f)/layers/attention/query"


def compiled(function, mesh, *arguments, out):
    """The program of a function on a mesh; arguments are (shape, dtype, partition)."""
    shapes = [jax.ShapeDtypeStruct(s, d, sharding=NamedSharding(mesh, PartitionSpec(*p))) for s, d, p in arguments]
    lowered = jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec(*out))).lower(*shapes)
    return read_hlo(lowered.compile().as_text())


def test_fsdp_sends_gathered_weights_and_scattered_gradients():
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=8))
    layers, width, rows = 3, 64, 4096

    @jax.checkpoint
    def layer(x, weight):
        return jnp.tanh(x @ weight)

    def loss(weights, x):
        return jnp.sum(jax.lax.scan(lambda x, weight: (layer(x, weight), None), x, weights)[0])

    text = compiled(
        jax.grad(loss),
        mesh,
        ((layers, width, width), jnp.float32, (None, "fsdp", None)),
        ((rows, width), jnp.float32, ("fsdp", None)),
        out=(None, "fsdp", None),
    )
    wire = wire_by_kind(collectives_of(text, dict(mesh.shape)))
    matrix = width * width * 4
    # Forward, and once more for what is recomputed and for the gradient of x.
    assert wire["all-gather over fsdp"] == 2 * layers * matrix * 7 / 8
    # On CPU XLA reduces the whole gradient and keeps a shard of it.
    assert wire["all-reduce over fsdp"] == 2 * layers * matrix * 7 / 8
    flops = step_flops(text, sequence_length=1)
    product = 2 * (rows // 8) * width * width
    assert flops.products == 4 * layers * product  # forward, again, and two gradients
    assert flops.share_again == pytest.approx(1 / 4)


def test_a_scattered_sum_sends_half_of_a_whole_one():
    mesh = sharding.make_mesh(sharding.MeshConfig(data=2, fsdp=4))
    scatter = jax.shard_map(
        lambda x: jax.lax.psum_scatter(x, "fsdp", tiled=True), mesh=mesh, in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(("data", "fsdp")), check_vma=False,
    )  # fmt: skip
    text = compiled(scatter, mesh, ((64, 16), jnp.float32, ("data",)), out=(("data", "fsdp"),))
    assert wire_by_kind(collectives_of(text, dict(mesh.shape))) == {"reduce-scatter over fsdp": 32 * 16 * 4 * 3 / 4}


def test_tensor_parallelism_sends_one_all_reduce_of_activations():
    mesh = sharding.make_mesh(sharding.MeshConfig(data=2, tensor=4))
    rows, width, inner = 16, 32, 128
    text = compiled(
        lambda x, up, down: jnp.tanh(x @ up) @ down,
        mesh,
        ((rows, width), jnp.float32, ("data", None)),
        ((width, inner), jnp.float32, (None, "tensor")),
        ((inner, width), jnp.float32, ("tensor", None)),
        out=("data", None),
    )
    wire = wire_by_kind(collectives_of(text, dict(mesh.shape)))
    assert wire == {"all-reduce over tensor": 2 * (rows // 2) * width * 4 * 3 / 4}


def test_convolutions_have_the_flops_of_their_products():
    # As XLA:TPU writes BTD,DNH->BTNH: heads are a dimension of the window, padded so that each place meets one tap.
    line = (
        "%x = bf16[4,64,32,1]{3,2,1,0} parameter(0)\n  %k = bf16[32,8,16,1]{3,2,1,0} parameter(1)\n"
        "  %c = bf16[4,64,8,16]{3,1,2,0} convolution(%x, %k), window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, "
        "dim_labels=0bf1_i1o0->0b1f"
    )
    assert step_flops(program(grouped=line), 1).products == 2 * 4 * 64 * 32 * 8 * 16
    # A weight's gradient: the batch is the window.
    line = (
        "%x = bf16[4,64,32]{2,1,0} parameter(0)\n  %k = bf16[4,64,16]{2,1,0} parameter(1)\n"
        "  %c = bf16[32,16,1]{1,0,2} convolution(%x, %k), window={size=4}, dim_labels=0fb_0io->bf0"
    )
    assert step_flops(program(grouped=line), 1).products == 2 * 4 * 64 * 32 * 16


def test_a_kernel_beside_those_of_the_backward_pass_is_again():
    heads = "bf16[2,8,64,16]{3,2,1,0}"
    calls = [f"%splash_mha_{part} = {heads} custom-call(%q)" for part in ("fwd.1", "dq.1", "dkv.1")]
    product = 2 * 8 * 64 * 128 * 16  # the causal half of one
    forward = step_flops(program(grouped=calls[0]), sequence_length=128)
    assert (forward.kernels, forward.again) == (2 * product, 0)
    backward = step_flops(program(grouped="\n  ".join(calls)), sequence_length=128)
    assert (backward.kernels, backward.again) == (9 * product, 2 * product)


def test_output_matrix_is_gathered_once_for_all_tiles():
    model = ModelConfig(512, 32, 64, 2, 4, 2)
    optimizer = optimizer_chain(ademamix(1e-3), 0.1)
    mesh = sharding.MeshConfig(data=2, fsdp=4)
    program = make_program(model, optimizer, Objective(num_tiles=8), mesh, 1, 64)
    text = program.compile(16).as_text()
    found = collectives_of(read_hlo(text), {"data": 2, "fsdp": 4, "tensor": 1, "context": 1})
    of_lm_head = [each for each in found if each.kind == "all-gather" and part_of_model(each.op_name) == "lm_head"]
    assert [each.times for each in of_lm_head] == [1]
