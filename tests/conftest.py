"""Every test sees eight fake CPU devices, so that one process can stand in for a mesh."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    # With several mesh axes XLA:CPU's default scheduler starts collectives in another order on each fake device, and
    # they wait for each other for ever; in program order they do not.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false"
    )
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Programs compiled once serve every test process, of this run and the next.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
