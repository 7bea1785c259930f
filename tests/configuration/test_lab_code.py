"""What a lab's module can do when it is imported or looked at: one line, and nothing half registered."""

import sys

import pytest

from apertus_jax.cli import main
from apertus_jax.configuration import registry

CONTENT = {
    "ends the program": "import sys\nsys.exit(0)\n",
    "ends with a text": "raise SystemExit('bye\\n\\x1b[31mbye')\n",
    "raises what nobody catches": "class Odd(BaseException): pass\nraise Odd('x')\n",
    "raises when asked for a name": "def __getattr__(name): raise RuntimeError('asked ' + name)\n",
    "name with a blank": "def mask(): pass\nglobals()['my mask'] = mask\n__all__ = ['my mask']\n",
    "name that is not ASCII": "def fünf(): pass\n__all__ = ['fünf']\n",
    "class without a signature": "def mask(): pass\nclass Count(int): pass\n__all__ = ['mask', 'Count']\n",
    "signature that fails": (
        "class Meta(type):\n    @property\n    def __signature__(cls): raise RuntimeError('none')\n"
        "class Mask(metaclass=Meta): pass\n__all__ = ['Mask']\n"
    ),
}


@pytest.mark.parametrize("content", CONTENT.values(), ids=CONTENT.keys())
def test_module_that_misbehaves_is_one_line(lab, capsys, content):
    (lab / "lab_odd.py").write_text(content)
    known = set(registry.bindables)
    assert main(["tokenize", "--input=x.jsonl", "--output=out", "--import=lab_odd"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("apertus: --import=lab_odd: ") and shown.count("\n") == 1 and "\x1b" not in shown
    assert set(registry.bindables) == known and "lab_odd" not in registry.imported
    sys.modules.pop("lab_odd", None)
