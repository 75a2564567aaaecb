"""Importing mha2mla, before or after transformers, makes it load a directory of layout mha2mla without remote code.
usage: transformers_test.py CONVERTED"""
import subprocess
import sys

directory = sys.argv[1]
LOAD = f"""
import warnings
warnings.simplefilter("error", ImportWarning)
model = AutoModelForCausalLM.from_pretrained({directory!r})
config = AutoConfig.from_pretrained({directory!r})
assert len(AutoTokenizer.from_pretrained({directory!r})("in the beginning").input_ids) > 2
assert type(model).__module__ == "mha2mla.modeling_mha2mla", type(model)
assert type(config).__module__ == "mha2mla.configuration_mha2mla", type(config)
import torch
with torch.no_grad():
    assert torch.isfinite(model(torch.arange(1, 9)[None]).logits).all()
"""
BOTH = "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n"
CONFIG_ONLY = f"from transformers import AutoConfig\nassert AutoConfig.from_pretrained({directory!r}).mha2mla\n"
for name, code in {
    "before": "import mha2mla, sys\nassert 'transformers' not in sys.modules\n" + BOTH + LOAD,
    "after": BOTH + "import mha2mla\n" + LOAD,
    "after use": BOTH + "AutoModelForCausalLM, AutoConfig.for_model('llama')\nimport mha2mla\n" + LOAD,
    "configuration": "import mha2mla\n" + CONFIG_ONLY,
}.items():
    if subprocess.run([sys.executable, "-c", code]).returncode != 0:
        sys.exit(f"transformers, mha2mla imported {name}: failed")
print("transformers: as expected")
