"""Rooflines against published runs on TPUs (docs/reference/after_version_1.md §5.1), and against hand counts."""

import dataclasses

import pytest

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.model.parameters import parameter_specs
from apertus_jax.training.planning.chips import CHIPS
from apertus_jax.training.planning.roofline import (
    Attention,
    Product,
    attention_of,
    axis_bandwidths,
    products_of,
    roofline,
    step_work,
)
from apertus_jax.training.planning.topology import drawn_devices, topology_named

HEAD = 128
TOLERANCE = 0.15


@dataclasses.dataclass(frozen=True)
class Llama:
    """Shapes of a published Llama: hidden, feed-forward, layers, vocabulary; 8 heads of keys where they are grouped."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int

    def products(self, attention_kept):
        """Gate and up are always computed again, queries, keys and values unless they are kept."""

        def matrix(size, again):
            return Product(size * self.layers, self.layers, again)

        keys = 2 * self.hidden * 8 * HEAD
        return [
            matrix(self.hidden**2 + keys, not attention_kept),
            matrix(self.hidden**2, True),
            matrix(2 * self.hidden * self.inner, True),
            matrix(self.hidden * self.inner, False),
            Product(self.hidden * self.vocabulary, 1, False),
        ]


LLAMA_8B = Llama(4096, 14336, 32, 128256)
LLAMA_70B = Llama(8192, 28672, 80, 128256)
LLAMA_405B = Llama(16384, 53248, 126, 128256)
LLAMA2_70B = Llama(8192, 28672, 80, 32000)
# Chip, topology, model, length, what recomputation keeps of attention, published tokens per second and chip.
KEPT, FULL = True, False
PUBLISHED = {
    "Ironwood, 70B, 64 chips": ("tpu7x:4x4x4", LLAMA_70B, 8192, KEPT, 2687),
    "Ironwood, 70B, 256 chips": ("tpu7x:4x8x8", LLAMA_70B, 8192, KEPT, 2671),
    "Ironwood, 70B, 128k": ("tpu7x:4x8x8", LLAMA_70B, 131072, KEPT, 963),
    "Ironwood, 405B": ("tpu7x:4x8x8", LLAMA_405B, 8192, KEPT, 500),
    "v6e, 8B": ("v6e:16x16", LLAMA_8B, 8192, FULL, 7207),
    "v6e, 70B": ("v6e:16x16", LLAMA_70B, 8192, FULL, 960),
    "v5p, Llama-2 70B": ("v5p:8x8x8", LLAMA2_70B, 4096, KEPT, 692),
}


def predicted(topology, model, length, kept):
    """Tokens per second and chip of a run with one row of 8,192 or one whole sequence a chip; no network."""
    chip = topology_named(topology).kind
    products = model.products(kept)
    state = 16 * sum(product.size for product in products) / topology_named(topology).num_devices
    work = step_work(products, Attention(model.layers, model.hidden, not kept), 2, length, state)
    return 2 * length / roofline(work, chip, HEAD, {}).step


@pytest.mark.parametrize("row", PUBLISHED)
def test_one_efficiency_a_chip_reproduces_published_runs(row):
    *run, published = PUBLISHED[row]
    assert predicted(*run) == pytest.approx(published, rel=TOLERANCE)


def test_flops_of_the_8b_are_those_of_its_matrices():
    model = ModelConfig(131072, 4096, 21504, 32, 32, 8, compute_dtype="bfloat16", attention_implementation="tpu_splash")
    kernels = sum(spec.size for path, spec in parameter_specs(model).items() if path.endswith("/kernel"))
    work = step_work(products_of(model), attention_of(model), 4, 4096, 0)
    assert work.products == 6 * kernels * 4 * 4096 and work.again == 0
    full = dataclasses.replace(model, remat_policy="full")
    again = step_work(products_of(full), attention_of(full), 4, 4096, 0)
    down, head = 32 * 21504 * 4096, 4096 * 131072
    # XLA leaves out what no gradient needs: its program of the 8B on v5p recomputes the same (docs/scale.md).
    assert again.products - work.products == 2 * (kernels - down - head) * 4 * 4096
    assert again.attention - work.attention == 2 * 32 * 4 * 4096**2 * 4096


@pytest.mark.parametrize(
    ("topology", "sizes", "links"),
    [
        ("v5p:4x8x8", {"data": 4, "fsdp": 64}, {"data": 2, "fsdp": 4}),
        ("v5p:4x8x8", {"data": 1, "fsdp": 256}, {"fsdp": 6}),
        ("v5p:2x2x2", {"data": 1, "fsdp": 4, "tensor": 2}, {"fsdp": 2, "tensor": 1}),  # no ring of two chips
        ("v6e:16x16", {"data": 1, "fsdp": 256}, {"fsdp": 4}),
        ("v6e:8x8", {"data": 1, "fsdp": 64}, {"fsdp": 2}),  # the ends of 8 chips are not joined
    ],
)
def test_an_axis_sends_over_the_links_of_its_dimensions(topology, sizes, links):
    named = topology_named(topology)
    mesh = sharding.make_mesh(sharding.MeshConfig(**sizes), drawn_devices(named))
    found = axis_bandwidths(mesh, named.kind)
    assert found == {axis: count * named.kind.link_bandwidth for axis, count in links.items()}


def test_between_slices_the_slow_network_bounds_a_step():
    named = topology_named("v5p:4x4x4:2")
    mesh = sharding.make_mesh(sharding.MeshConfig(data=2, fsdp=64), drawn_devices(named))
    bandwidths = axis_bandwidths(mesh, named.kind)
    assert bandwidths["data"] == 6.25e9
    work = step_work([Product(10**9, 1, False)], Attention(1, 1, False), 1, 1, 0)
    bounded = dataclasses.replace(work, wire_bytes={"fsdp": 1e9, "data×fsdp": 6.25e9})
    result = roofline(bounded, CHIPS["v5p"], HEAD, bandwidths)
    assert result.bound == "network, data×fsdp" and result.step == pytest.approx(1.0)
    waiting = dataclasses.replace(bounded, synchronous={"data×fsdp": 6.25e9})
    result = roofline(waiting, CHIPS["v5p"], HEAD, bandwidths)
    assert result.waiting == pytest.approx(1.0) and result.step > 1.0
