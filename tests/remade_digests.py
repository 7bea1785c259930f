"""A stranger who alters a folder and then makes its commit marker fit again."""

import json

from apertus_jax.storage import artifacts


def remake(folder, **summary):
    """Writes the marker again as a stranger would, with digests of what lies there now."""
    marker = folder / artifacts.COMMIT_MARKER
    manifest = json.loads(marker.read_text())
    for name, record in manifest["files"].items():
        record["bytes"], record["blake2b"] = (folder / name).stat().st_size, artifacts.digest_file(folder / name)
    manifest["summary"] |= summary
    del manifest["digest"]
    manifest["digest"] = artifacts.digest_json(manifest)
    marker.write_text(json.dumps(manifest))
