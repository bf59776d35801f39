"""The first part of the table in `bad_inputs`: flags, variables of ranks, YAML, and the JSON of the engine."""

from tests.campaign.bad_input_case import FRESH, PRETRAIN, RESUME, Case
from tests.campaign.damages import text

DEEP = "[" * 500 + "]" * 500
BOMB = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n"
PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}

SETTINGS = [
    # Flags.
    Case("flag missing", "launch/pretrain.py --deepspeed_config {here}/ds.json", "required: --config"),
    Case("flag unknown", f"{PRETRAIN} --stepps 3", "unrecognized arguments: --stepps"),
    Case("flag of text for a number", f"{PRETRAIN} --local_rank zero", "--local_rank: invalid int value"),
    Case("configuration missing", PRETRAIN.replace("run.yaml", "nun.yaml"), "nun.yaml: No such file"),
    Case("configuration a folder", PRETRAIN.replace("run.yaml", "swe"), "Is a directory"),
    Case("engine missing", PRETRAIN.replace("ds.json", "nods.json"), "nods.json: No such file"),
    Case("set without a value", f"{PRETRAIN} --set train.steps", "--set takes key=value"),
    Case("set below a value", f"{PRETRAIN} --set train.steps.x=1", "'steps' is a value, not a section"),
    Case("set a key misspelt", f"{PRETRAIN} --set train.stepps=3", "Did you mean"),
    Case("set a key with markup", f"{PRETRAIN} --set 'train.<script>=3'", "unknown key 'train.<script>'"),
    Case("set steps of 0", f"{PRETRAIN} --set train.steps=0", "train.steps: Input should be greater"),
    Case("set a URL to write to", f"{PRETRAIN} --set output.dir=s3://bucket/x", "expected a path on this machine"),
    Case("set steps of text", f"{PRETRAIN} --set train.steps=abc", "train.steps: Input should be a valid integer"),
    Case("set steps of 1e23", f"{PRETRAIN} --set train.steps={10**23}", "train.steps"),
    Case("set a rate of NaN", f"{PRETRAIN} --set train.learning_rate=.nan", "finite number"),
    Case("set betas of 1", f"{PRETRAIN} --set train.betas=[1,1]", "train.betas.0: Input should be less than 1"),
    Case("set a bracket too few", f"{PRETRAIN} --set train.betas=[1", "--set train.betas: '[1'"),
    Case("set a huge batch", f"{PRETRAIN} --set train.micro_batch={10**9}", "train.micro_batch"),
    Case("set a long history", f"{FRESH} --set data.history=100", "of history"),
    Case("set a patch beyond the grid", f"{FRESH} --set tokens.patches=[[1,1,64,64]]", "mostly padding"),
    Case("set flash attention", f"{FRESH} --set model.attention=flash_attn", "needs a GPU"),
    Case(
        "set an unknown attention",
        f"{FRESH} --set model.attention=flash",
        "model.attention: there is no attention backend 'flash'; there are auto, grouped, varlen, flash_attn. Did you mean",
    ),
    Case("set a split beyond 1", f"{FRESH} --set data.split=[1,1,0]", "data.split must add up to 1"),
    Case("set no data", f"{FRESH} --set data.sets=[]", "data.sets"),
    Case("set a sequence too wide", f"{FRESH} --set parallel.sequence_parallel_size=3", "sequence_parallel_size"),
    Case("set the working folder", f"{PRETRAIN} --set output.dir=.", "is the working folder"),
    Case("set a pattern for a name", f"{PRETRAIN} --set 'output.dir=\"{{here}}/lr[1]\"'", "parts of a pattern"),
    Case("set a folder of others", f"{PRETRAIN} --set output.dir={{here}}/swe", "was not made by a run"),
    Case("resume another model", f"{RESUME} --set model.scheme=avit", "holds a run with model.scheme"),
    Case("data of markup", f"{FRESH} --set 'data.sets=[{{path: \"{{here}}/<script>\"}}]'", "<script> does not exist"),
    Case("data of quotes", f'{FRESH} --set \'data.sets=[{{path: "{{here}}/a\\"b"}}]\'', 'a"b does not exist'),
    Case("data of unicode", f"{FRESH} --set 'data.sets=[{{path: \"{{here}}/数据\"}}]'", "数据 does not exist"),
    Case("data of two lines", f"{FRESH} --set 'data.sets=[{{path: \"{{here}}/a\\nb\"}}]'", "line breaks"),
    Case("rank of -1", FRESH, "rank (RANK) is -1", environment=PLACE | {"RANK": "-1"}),
    Case("world of text", FRESH, "WORLD_SIZE is 'two'", environment=PLACE | {"WORLD_SIZE": "two"}),
    Case("port of text", FRESH, "MASTER_PORT is 'high'", environment=PLACE | {"MASTER_PORT": "high"}),
    Case("port of 99999", FRESH, "MASTER_PORT is 99999", environment=PLACE | {"MASTER_PORT": "99999"}),
    Case(
        "an address that is none", FRESH, "cannot be resolved", environment=PLACE | {"MASTER_ADDR": "no.such.invalid"}
    ),
    # YAML.
    Case("YAML in latin-1", PRETRAIN, "is not text in UTF-8", text("run.yaml", "data: ü".encode("latin-1"))),
    Case("YAML of bytes", PRETRAIN, "run.yaml", text("run.yaml", bytes(range(128)) * 10)),
    Case("YAML of aliases", PRETRAIN, "uses the alias *a", text("run.yaml", BOMB)),
    Case("YAML deep", PRETRAIN, "run.yaml", text("run.yaml", f"data: {DEEP}")),
    Case("YAML a list", PRETRAIN, "must hold sections", text("run.yaml", "- 1\n- 2\n")),
    Case("YAML with tabs", PRETRAIN, "run.yaml", text("run.yaml", "data:\n\tsets: 1\n")),
    Case("YAML of nothing", PRETRAIN, "must hold sections", text("run.yaml", "")),
    Case("YAML with a tag", PRETRAIN, "run.yaml", text("run.yaml", "data: !!python/object/apply:os.getcwd []\n")),
    Case("YAML of digits", PRETRAIN, "run.yaml", text("run.yaml", f"train: {{steps: {'9' * 5000}}}\n")),
    Case("YAML of a date", PRETRAIN, "train", text("run.yaml", "train: 2024-01-01\n")),
    Case("YAML too large", PRETRAIN, "is larger than 4 MiB", text("run.yaml", "# " + "x" * 5 * 2**20)),
    # The engine's JSON.
    Case("JSON cut short", PRETRAIN, "ds.json", text("ds.json", '{"zero_optimization": {')),
    Case("JSON a list", PRETRAIN, "must hold a JSON object", text("ds.json", "[]")),
    Case("JSON unknown key", PRETRAIN, "DeepSpeed has no key", text("ds.json", '{"zero_optimisation": {}}')),
    Case("JSON with our number", PRETRAIN, "is set in the run YAML", text("ds.json", '{"train_batch_size": 4}')),
    Case("JSON stage 7", PRETRAIN, "stage", text("ds.json", '{"zero_optimization": {"stage": 7}}')),
    Case("JSON a number for a section", PRETRAIN, "bf16", text("ds.json", '{"bf16": 3}')),
    Case("JSON with a key twice", PRETRAIN, "twice; remove one", text("ds.json", '{"bf16": {}, "bf16": {}}')),
    Case("JSON of a timer", FRESH, "JSON (deepspeed", text("ds.json", '{"timers": {"throughput": 3}}')),
    Case("JSON deep", PRETRAIN, "ds.json", text("ds.json", f'{{"bf16": {DEEP}}}')),
    Case("JSON of bytes", PRETRAIN, "ds.json", text("ds.json", b"\xff\xfe\x00")),
]
