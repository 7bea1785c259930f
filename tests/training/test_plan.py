"""`plan`: state to the byte, memory as XLA allots it, arithmetic of the released runs, and no hardware needed."""

import dataclasses
import json
import math

import jax
import pytest

from apertus_jax import cli, sharding
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, abstract_parameters, count_parameters
from apertus_jax.objectives import goldfish, not_after_eod
from apertus_jax.optimization import ademamix, wsd_schedule
from apertus_jax.training import Objective, RunSchedule, TrainingConfig
from apertus_jax.training.planning.devices import DEVICES, device_named, known_devices, peak_flops_per_second
from apertus_jax.training.planning.plan import plan_work
from apertus_jax.training.planning.plan_command import plan

MODEL = ModelConfig(4096, 256, 1344, 6, 8, 4, attention_implementation="xla_blockwise")
MODEL_8B = ModelConfig(131072, 4096, 21504, 32, 32, 8, compute_dtype="bfloat16", remat_policy="full")
MODEL_70B = ModelConfig(131072, 8192, 43008, 80, 64, 8, compute_dtype="bfloat16", remat_policy="full")
PALLAS = dataclasses.replace(MODEL, attention_implementation="pallas_gpu_mha")
OBJECTIVE = Objective([goldfish(k=4, h=8, strategy="document"), not_after_eod(2)], num_tiles=8)


def make_plan(model=MODEL, mesh=None, accumulation=1, length=256, batch=32, **options):
    """Returns the figures of a plan for eight devices, fake ones of these tests unless said otherwise."""
    training = TrainingConfig(sequence_length=length, accumulation=accumulation)
    schedule = RunSchedule(BatchSchedule(batch), 1e-3, options.pop("total_steps", 100))
    arguments = {"devices": 8, "training": training, "mesh": sharding.MeshConfig(**(mesh or {}))}
    return plan(model, OBJECTIVE, ademamix, schedule, **(arguments | options))


@pytest.mark.parametrize(
    ("remat", "mesh", "accumulation"),
    [
        ("none", {"data": 8}, 1),
        ("full", {"data": 1, "fsdp": 8}, 2),
        ("dots", {"data": 2, "fsdp": 2, "tensor": 2}, 1),
        ("full", {"data": 8}, 1),
    ],
)
def test_planned_memory_is_what_xla_allots(remat, mesh, accumulation):
    model = dataclasses.replace(MODEL, remat_policy=remat)
    figures = make_plan(model, mesh, accumulation, compile=True)
    memory, compiled = figures["memory"], figures["compiled"]
    exact = memory["parameters"] + memory["optimizer_state"] + memory["batch"]
    # Fields of the batch that the step does not read are left out by XLA.
    assert 0 <= exact - compiled["state_and_batch"] <= memory["batch"]
    assert memory["total"] - exact == pytest.approx(compiled["temporary"], rel=0.2)


def test_all_devices_together_hold_the_whole_state_once(capsys):
    for devices, mesh in ((1, {}), (512, {"data": 1, "fsdp": -1}), (4096, {"data": 2, "fsdp": -1, "tensor": 8})):
        figures = make_plan(MODEL_8B, mesh, length=4096, batch=4096, devices=devices)
        copies = figures["mesh"]["data"]
        held = devices * (figures["memory"]["parameters"] + figures["memory"]["optimizer_state"])
        assert held >= copies * 4 * 4 * count_parameters(abstract_parameters(MODEL_8B))
        # Norms and other small arrays are whole on every device.
        assert held == pytest.approx(copies * figures["checkpoint_bytes"], rel=0.1)
    assert len(jax.devices()) == 8
    assert "8,053,338,176" in capsys.readouterr().out


def test_arithmetic_of_the_released_runs():
    # docs/reference/model_and_training.md §10: FLOPs per token, of the whole run, and tokens per second of a GH200.
    schedule = BatchSchedule(2048, 4096, 523_518 * 2048)
    large = plan_work(MODEL_70B, schedule, 4096, 1_155_828, 4096, DEVICES["gh200"], 0.3287)
    assert large.flops_per_token == pytest.approx(4.4957e11, rel=1e-4)
    assert large.flops == pytest.approx(6.744e24, rel=1e-3)
    assert large.tokens_per_second_and_device == pytest.approx(723, rel=1e-3)
    assert large.step_seconds == pytest.approx((2048 * 4096 / 723 / 4096, 4096 * 4096 / 723 / 4096), rel=1e-3)
    assert large.days * 24 * 4096 == pytest.approx(large.device_hours)
    assert large.device_hours == pytest.approx(6e6, rel=0.05)  # "about 6M GPU-hours"
    small = plan_work(MODEL_8B, BatchSchedule(1024), 4096, 10, 1024, DEVICES["gh200"], 0.363)
    assert small.flops_per_token == pytest.approx(5.158e10, rel=1e-4)
    assert small.tokens_per_second_and_device == pytest.approx(6960, rel=0.01)


def test_kernel_of_another_platform_is_planned_like_blockwise():
    assert make_plan(PALLAS)["memory"] == make_plan(MODEL)["memory"]


def test_what_does_not_fit_is_said(capsys):
    fitting = make_plan(MODEL_8B, {"data": 1, "fsdp": 8}, length=4096, batch=8, device="h200")
    crowded = make_plan(MODEL_8B, {"data": 8}, length=4096, batch=8)
    assert fitting["fits"] and not crowded["fits"]
    assert capsys.readouterr().out.count("DOES NOT FIT") == 1


def test_more_recomputation_and_more_pieces_take_less_memory():
    totals = [
        make_plan(dataclasses.replace(MODEL_8B, remat_policy=policy), {"data": 1, "fsdp": 8}, pieces, 4096, 16)[
            "memory"
        ]
        for policy, pieces in (("none", 1), ("dots", 1), ("full", 1), ("full", 2))
    ]
    kept = [each["kept_for_backward"] for each in totals]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4
    assert totals[0]["total"] > totals[1]["total"] > totals[2]["total"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "abacus"}, "choose one of"),
        ({"utilization": 1.5}, "above 0 and at most 1"),
        ({"utilization": math.nan}, "plan.utilization = nan"),
        ({"devices": -1}, "plan.devices = -1"),
        ({"devices": True}, "plan.devices = True"),
        ({"total_steps": 0}, "RunSchedule.total_steps = 0"),
        ({"mesh": {"data": 3}}, "there are 8"),
        ({"mesh": {"data": 1, "tensor": 8}}, "does not divide"),
        ({"batch": 12}, "does not divide over 8"),
        ({"accumulation": 3}, "does not divide into 3"),
        ({"devices": 16, "compile": True}, "needs 16 devices here"),
        (
            {"model": dataclasses.replace(MODEL, attention_implementation="tpu_splash")},
            "runs on tpu only and this is gpu",
        ),
        ({"model": PALLAS, "length": 40}, "multiple of 16, not 40"),
        ({"model": PALLAS, "compile": True}, "runs on gpu only and this is cpu"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        make_plan(**changes)


def test_a_plan_takes_the_gin_file_of_a_run(tmp_path, capsys, monkeypatch):
    arguments = ["plan", "--gin_file=quickstart.gin", "--gin.plan.devices=8", f"--output={tmp_path / 'plan'}"]
    assert cli.main(arguments) == 0
    figures = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert figures["parameters"] == 1_934_728
    assert figures["work"]["samples"] == 4800
    assert "Memory of one device" in (tmp_path / "plan" / "report.html").read_text()
    assert (tmp_path / "plan" / "operative_config.gin").exists()
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments[:3], "--steps=10", "--gin.BatchSchedule.initial=16"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]  # without an output nothing is written
    assert cli.main([*arguments[:3], "--gin.plan.mesh=@MeshConfig()", "--gin.MeshConfig.data=3"]) == 2
    assert "there are 8" in capsys.readouterr().err


def test_a_schedule_in_fractions_of_the_run_can_be_compiled():
    tiny, training = ModelConfig(512, 32, 64, 1, 4, 2), TrainingConfig(sequence_length=32)
    rate = wsd_schedule(1e-3, warmup_fraction=0.1, decay_fraction=0.2)
    schedule = RunSchedule(BatchSchedule(8), rate, 100)
    figures = plan(tiny, OBJECTIVE, ademamix, schedule, training, devices=8, compile=True)
    assert figures["compiled"]["state_and_batch"] > 0


def test_cpu_of_this_machine_is_shared_among_its_devices():
    whole, share = device_named("cpu", 1), device_named("cpu", 4)
    assert share.memory_bytes * 4 == whole.memory_bytes and share.flops_per_second * 4 == whole.flops_per_second
    assert whole.platform == "cpu" and "cpu" in known_devices()
    assert peak_flops_per_second(jax.devices("cpu")) is None  # no MFU against a rough figure
