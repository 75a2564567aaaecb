"""The Python module in an environment that has nothing else. usage: module_test.py MODEL"""
import json
import sys
import tempfile
from pathlib import Path

import mha2mla

model = Path(sys.argv[1])
assert "transformers" not in sys.modules
assert mha2mla.__version__ in mha2mla.run(["--version"], capture_output=True).stdout

plan = mha2mla.plan(model)
assert plan == json.loads(mha2mla.run(["plan", model, "--json"], capture_output=True).stdout)
assert plan == mha2mla.plan(model / "config.json") == mha2mla.plan(json.loads((model / "config.json").read_text())), "a directory, a file, a mapping"
assert mha2mla.plan(model, kv_reduction=0.875, layout="mha2mla", kv_bits=4) != plan

try:
    mha2mla.run(["inspect", model / "missing"], capture_output=True)
    raise SystemExit("no error of a missing checkpoint")
except mha2mla.Error as error:
    assert error.returncode == 1 and "missing" in str(error), str(error)
assert mha2mla.run(["inspect", model / "missing"], check=False, capture_output=True).returncode == 1
try:
    mha2mla.run("plan " + str(model))
    raise SystemExit("no error of one string")
except TypeError:
    pass

with tempfile.TemporaryDirectory() as place:
    mha2mla.run(["convert", model, Path(place, "out"), "--method", "mha2mla", "--rope", "uniform", "-q"])
    assert Path(place, "out", "config.json").exists()
print("module: as expected")
