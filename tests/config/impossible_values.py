"""Values that a space can't have, each with the rule that its error names."""

from __future__ import annotations

from collections.abc import Iterator

from broken_variants import TEXTS, Broken, edited

# What the shipped space has in the places where these values are tried.
ALPHA = "{low: 0.0, high: 1.0}"
TEMPERATURE = "{low: 1.0, high: 10.0}"
LEARNING_RATE = "{low: 1.0e-5, high: 1.0e-4, log: true}"
STEP = "{shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 0.8}}"

ALPHAS = [
    ("1.5", "alpha must be between 0 and 1, not 1.5"),
    ("-0.1", "alpha must be between 0 and 1, not -0.1"),
    (".nan", "must be a finite number"),
    (".inf", "must be a finite number"),
    ("-.inf", "must be a finite number"),
    ("1e400", "must be a finite number"),
    ("1" + "0" * 400, "at most 9223372036854775807"),
    ("1" * 5000, "can't be read as a value"),
    ("true", "must be a number"),
    ("no", "must be a number"),
    ("null", "must be a number"),
    ("'0.5'", "must be a number"),
    ("2020-01-01", "must be a number"),
    ("[]", "must be a"),
    ("[0.5]", "must be a"),
    ("{}", "this mapping has nothing"),
    ("{low: 1.0, high: 0.0}", r"low \(1\) must be below high \(0\)"),
    ("{low: 0.5, high: 0.5}", r"low \(0.5\) must be below high \(0.5\)"),
    ("{low: 0.0, high: 1.0, log: true}", "a log range must stay above 0"),
    ("{low: 0.0, high: 1.5}", "alpha must be between 0 and 1, not 1.5"),
    ("{low: -0.5, high: 1.0}", "alpha must be between 0 and 1, not -0.5"),
    ("{low: .nan, high: 1.0}", "must be a finite number"),
    ("{low: 0.0, high: .inf}", "must be a finite number"),
    ("{low: 0.0, high: 1.0, step: 2.0}", "step .* must be at most high - low"),
    ("{low: 0.0, high: 1.0, step: 0.0}", "must be above 0"),
    ("{low: 0.0, high: 1.0, step: -0.1}", "must be above 0"),
    ("{low: 0.1, high: 1.0, log: true, step: 0.1}", "a log range has no step"),
    ("{low: 0.0, high: 1.0, log: 1}", "must be true or false"),
    ("{low: '0', high: 1.0}", "must be a number"),
    ("{low: 0.0}", "high is missing"),
    ("{high: 1.0}", "low is missing"),
    ("{low: 0.0, high: 1.0, choices: [0.5]}", "unknown key"),
    ("{choices: []}", "must have at least 1"),
    ("{choices: 0.5}", "choices: must be a list, not 0.5; put brackets around it"),
    ("{choices: [0.5, 0.5]}", "choices must differ"),
    ("{choices: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
    ("{choices: [0.5, .nan]}", "alpha must be between 0 and 1, not nan"),
    ("{choices: [0.5, high]}", "must be a number"),
    ("{choices: [0.5, true]}", "must be a number"),
    ("{choices: [[0.5]]}", "must be"),
    ("{any_of: [0.5]}", "must have at least 2"),
    ("{any_of: []}", "must have at least 2"),
    ("{any_of: 0.5}", "any_of: must be a list, not 0.5"),
    ("{any_of: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
    (
        "{any_of: [0.5, {any_of: [0.5, {low: 0.0, high: 2.0}]}]}",
        "alpha must be between 0 and 1, not 2",
    ),
    ("{any_of: [0.5, {low: 1.0, high: 0.0}]}", "must be below high"),
    ("{shape: liner, start: 0.0, end: 1.0}", "unknown shape 'liner'; did you mean 'linear'"),
    ("{shape: 3, start: 0.0, end: 1.0}", "unknown shape 3"),
    ("{shape: null}", "unknown shape None"),
    ("{shape: linear, start: 0.0}", "shape linear needs 'end'"),
    ("{shape: linear, start: 0.0, end: 1.0, at: 0.5}", "unknown key 'at'"),
    ("{shape: linear, start: 0.0, end: 1.1}", "alpha must be between 0 and 1, not 1.1"),
    (
        "{shape: linear, start: {low: 0.0, high: 1.1}, end: 1.0}",
        "alpha must be between 0 and 1, not 1.1",
    ),
    ("{shape: linear, start: [], end: 1.0}", "start: must be a number"),
    ("{any_of: [0.5, {shape: linear, start: [], end: 1.0}]}", "start: must be a number"),
    (
        "{shape: linear, start: {shape: linear, start: 0.0, end: 1.0}, end: 1.0}",
        "start: must be a number",
    ),
    ("{shape: cosine, start: 0.0, end: x}", "must be a number"),
    ("{shape: constant}", "shape constant needs 'value'"),
    ("{shape: per_epoch, values: []}", "values: must have at least 1"),
    ("{shape: per_epoch, values: 0.5}", "values: must be a list"),
    ("{shape: per_epoch, values: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
    ("{shape: per_epoch, values: [0.5], after: -1.0}", "alpha must be between 0 and 1, not -1"),
    ("{shape: per_epoch, values: [0.5, x]}", "must be a number"),
]

STEPS = [
    ("{shape: step, values: [0.0, 1.0], at: 0.0}", "'at' must lie between 0 and 1"),
    ("{shape: step, values: [0.0, 1.0], at: 1.0}", "'at' must lie between 0 and 1"),
    ("{shape: step, values: [0.0, 1.0], at: 1.5}", "'at' must lie between 0 and 1"),
    ("{shape: step, values: [0.0, 1.0], at: -0.5}", "'at' must lie between 0 and 1"),
    ("{shape: step, values: [0.0, 1.0], at: .nan}", "must be a finite number"),
    ("{shape: step, values: [0.0, 1.0], at: half}", "at: must be a list"),
    (
        "{shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 1.0}}",
        "'at' must lie between 0 and 1",
    ),
    (
        "{shape: step, values: [0.0, 1.0], at: {low: 0.0, high: 0.5}}",
        "'at' must lie between 0 and 1",
    ),
    (
        "{shape: step, values: [0.0, 1.0], at: {choices: [0.5, 1.2, 0.6]}}",
        "'at' must lie between 0 and 1",
    ),
    (
        "{shape: step, values: [0.0, 1.0], at: [0.3, 0.6]}",
        "2 values need 1 numbers in 'at', not 2",
    ),
    (
        "{shape: step, values: [0.0, 0.5, 1.0], at: 0.5}",
        "3 values need 2 numbers in 'at', not 1",
    ),
    ("{shape: step, values: [0.0, 0.5, 1.0], at: [0.6, 0.3]}", "the numbers in 'at' must rise"),
    ("{shape: step, values: [0.0, 0.5, 1.0], at: [0.5, 0.5]}", "the numbers in 'at' must rise"),
    (
        "{shape: step, values: [0.0, 0.5, 1.0], "
        "at: [{low: 0.2, high: 0.6}, {low: 0.5, high: 0.8}]}",
        "the numbers in 'at' must rise",
    ),
    (
        "{any_of: [0.5, {shape: step, values: [0.0, 0.5, 1.0], "
        "at: [{choices: [0.3, 0.7]}, {choices: [0.6, 0.8]}]}]}",
        "'at' must rise",
    ),
    ("{shape: step, values: [1.0], at: 0.5}", "values: must have at least 2"),
    ("{shape: step, values: [], at: []}", "values: must have at least 2"),
    (
        "{shape: step, values: {any_of: [[0.0, 1.0], [0.0, 0.5, 1.0]]}, at: 0.5}",
        "3 values need 2 numbers",
    ),
]

TEMPERATURES = [
    ("0", "temperature must be above 0, not 0"),
    ("-1.0", "temperature must be above 0, not -1"),
    (".nan", "must be a finite number"),
    (".inf", "must be a finite number"),
    ("hot", "must be a number"),
    ("{low: 0.0, high: 10.0}", "temperature must be above 0, not 0"),
    ("{low: -4.0, high: -1.0}", "temperature must be above 0, not -4"),
    ("{choices: [4.0, 0.0]}", "temperature must be above 0, not 0"),
    ("{shape: linear, start: 4.0, end: 0.0}", "temperature must be above 0, not 0"),
    (
        "{shape: cosine, start: {low: 0.0, high: 4.0}, end: 1.0}",
        "temperature must be above 0, not 0",
    ),
    (
        "{shape: per_epoch, values: [4.0, 2.0], after: 0.0}",
        "temperature must be above 0, not 0",
    ),
    ("{low: 10.0, high: 1.0}", "must be below high"),
    ("{low: 1.0, high: 10.0, log: yes}", "must be true or false"),
]

LEARNING_RATES = [
    ("0.0", "learning_rate must be above 0"),
    ("-1.0e-5", "learning_rate must not be below 0"),
    ("1.0e-5x", "must be a number"),
    ("{low: 1.0e-3, high: 1.0e-4, log: true}", r"low \(0.001\) must be below high \(0.0001\)"),
    ("{low: 0.0, high: 1.0e-4, log: true}", "a log range must stay above 0"),
    ("{low: -1.0e-4, high: 1.0e-4}", "learning_rate must not be below 0"),
    ("{choices: [-1.0e-5]}", "learning_rate must not be below 0"),
    ("{shape: linear, start: 0.0, end: 0.0}", "learning_rate must be above 0"),
]

TRAINING = [
    ("epochs: 3", "epochs: 0", "must be at least 1, not 0"),
    ("epochs: 3", "epochs: -3", "must be at least 1, not -3"),
    ("epochs: 3", "epochs: 2.5", "must be a whole number, not 2.5"),
    ("epochs: 3", "epochs: '3'", "must be a whole number, not '3'"),
    ("epochs: 3", "epochs: true", "must be a whole number, not True"),
    ("epochs: 3", "epochs: .inf", "must be"),
    ("epochs: 3", "epochs: [3]", "takes one value|must be"),
    ("epochs: 3", "epochs: {low: 0, high: 3}", "must be at least 1, not 0"),
    ("epochs: 3", "epochs: {low: 1.5, high: 3}", "must be a whole number, not 1.5"),
    (
        "epochs: 3",
        "epochs: {low: 1, high: 3, step: 0.5}",
        "step must be a whole number, not 0.5",
    ),
    ("epochs: 3", "epochs: {choices: [1, two]}", "must be a whole number, not 'two'"),
    ("epochs: 3", "epochs: {any_of: [1, {choices: [2, 0]}]}", "must be at least 1, not 0"),
    (
        "epochs: 3",
        "epochs: {shape: constant, value: 3}",
        "takes one value for the whole training",
    ),
    ("epochs: 3", "epochs: 99999999999999999999", "at most 9223372036854775807"),
    ("batch_size: 32", "batch_size: 0", "must be at least 1"),
    ("max_length: 128", "max_length: 2", "training.max_length: must be at least 4, not 2"),
    ("evaluations_per_epoch: 2", "evaluations_per_epoch: 0", "must be at least 1"),
    ("batch_size: 32", "batch_size: 32, warmup: 1.0", "must be below 1"),
    ("batch_size: 32", "batch_size: 32, warmup: {low: 0.0, high: 1.0}", "must be below 1"),
    ("batch_size: 32", "batch_size: 32, weight_decay: -0.1", "must be at least 0"),
    ("batch_size: 32", "batch_size: 32, gradient_clip: 0.0", "must be above 0"),
    ("batch_size: 32", "batch_size: 32, precision: bf61", "did you mean 'bf16'"),
    (
        "batch_size: 32",
        "batch_size: 32, scheduler: {choices: [linear, cosin]}",
        "did you mean 'cosine'",
    ),
    ("batch_size: 32", "batch_size: 32, batch_size: 16", "key 'batch_size' is there twice"),
]

SECTIONS = [
    ("name: sst2", "name: ..", "a name is 1 to 100"),
    ("name: sst2", "name: ../sst2", "a name is 1 to 100"),
    ("name: sst2", "name: a/b", "a name is 1 to 100"),
    ("name: sst2", "name: " + "n" * 300, "a name is 1 to 100"),
    ("name: sst2", "name: ''", "a name is 1 to 100"),
    ("name: sst2", "name: .hidden", "a name is 1 to 100"),
    ("name: sst2", "name: -x", "a name is 1 to 100"),
    ("name: sst2", "name: été", "a name is 1 to 100"),
    ("name: sst2", 'name: "a\\nb"', "a name is 1 to 100"),
    ("name: sst2", "name: 2", "must be text, not 2; put quotes around it"),
    ("dataset: nyu-mll/glue", "dataset: ''", "must not be empty"),
    ("dataset: nyu-mll/glue", "dataset: 3", "must be text, not 3"),
    ("dataset: nyu-mll/glue", "dataset: [a.csv]", "must be text"),
    (
        "dataset: nyu-mll/glue",
        "dataset: {trian: a.csv}",
        "task.dataset.trian: must be 'train', 'validation' or 'test'",
    ),
    ("text: sentence", "text: []", "must have at least 1"),
    ("text: sentence", "text: [a, b, c]", "must have at most 2"),
    ("text: sentence", "text: sentence\n  text: again", "key 'text' is there twice"),
    ("metric: accuracy", "metric: acuracy", "did you mean 'accuracy'"),
    ("metric: accuracy", "metric: accuracy\n  holdout: 0.5", "must be below 0.5"),
    ("metric: accuracy", "metric: accuracy\n  limit: {train: 0}", "must be at least 1"),
    ("metric: accuracy", "metric: accuracy\n  labels: [one]", "must have at least 2"),
    ("  distill:", "  a/b:", "a name is 1 to 100"),
    ("  distill:", "  finetune:", "key 'finetune' is there twice"),
    ("model: distilbert", "layers: 0, model: distilbert", "must be at least 1"),
    (
        "model: distilbert",
        "layers: {shape: constant, value: 3}, model: distilbert",
        "takes one value",
    ),
    ("model: distilbert/distilbert-base-uncased", "model: [distilbert]", "takes one value"),
    (
        "model: distilbert",
        "trust_remote_code: maybe, model: distilbert",
        "must be true or false",
    ),
    (
        "model: google-bert",
        "checkpoint: here, model: google-bert",
        "either 'model' .* or 'checkpoint'",
    ),
    (
        "model: google-bert",
        "labels: [a, b], model: google-bert",
        "'labels' names the outputs of a 'checkpoint'",
    ),
    ("learning_rate: 2.0e-5}}", "learning_rate: 0.0}}", "must be above 0"),
]

START_WITH = [
    ("{alpha: 1.5}", "is not between 0 and 1"),
    ("{alpha: yes}", "is not between 0 and 1"),
    ("{alpha: {shape: linear, start: 0.0, end: 1.0}}", "is not between 0 and 1"),
    ("{learning_rate: 1.0}", "is not between 1e-05 and 0.0001"),
    ("{temprature: 4.0}", "did you mean 'temperature'"),
    ("{epochs: 4}", "4 is not 3"),
    ("3", "must be a mapping"),
]


def impossible_values() -> Iterator[Broken]:
    for alpha, rule in ALPHAS:
        yield in_distill(ALPHA, alpha, rule)
    for step, rule in STEPS:
        yield edited("sst2", "  distill_then_finetune:", STEP, step, rule)
    for temperature, rule in TEMPERATURES:
        yield in_distill(TEMPERATURE, temperature, rule)
    for rate, rule in LEARNING_RATES:
        yield in_distill(LEARNING_RATE, rate, rule)
    for old, new, rule in TRAINING:
        yield edited("sst2", "training: {epochs: 3, batch_size", old, new, rule)
    for old, new, rule in SECTIONS:
        yield edited("sst2", old, old, new, rule, shift=new.count("\n"))
    for entry, rule in START_WITH:
        yield in_distill("{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}", entry, rule)


def in_distill(old: str, new: str, rule: str) -> Broken:
    return edited("sst2", "  distill:", old, new, rule)


def impossible_sections() -> Iterator[Broken]:
    yield edited(
        "sst2",
        "  combined:",
        "temperature: 4.0, ",
        "temperature.any_of: rnage, ",
        "'rnage' is none of range, linear_falling",
    )
    yield edited(
        "sst2",
        "strategies.finetune.learning_rate",
        "low: 1.5e-4",
        "low: 1.5e-2",
        "must be below high",
        embedded=True,
    )
    yield edited(
        "sst2",
        "strategies.finetune.learning_rate",
        "strategies.finetune.learning_rate",
        "name",
        "embedded: unknown key 'name'",
        embedded=True,
    )
    yield edited(
        "sst2",
        "    labels:",
        "[negative, positive]",
        "[negative]",
        "must have at least 2",
        embedded=True,
    )


def impossible_strategies() -> Iterator[Broken]:
    head = TEXTS["sst2"].split("strategies:")[0]
    line = head.count("\n") + 1
    for value, rule in [
        ("{}", "strategies: must have at least 1"),
        ("", "strategies: must be a mapping"),
        ("[finetune]", "strategies: must be a mapping"),
    ]:
        title = f"sst2: strategies {value or 'nothing'}"
        yield Broken(title, "sst2", f"{head}strategies: {value}\n", line, rule)
    yield Broken(
        "sst2: no embedded",
        "sst2",
        TEXTS["sst2"].split("embedded:")[0],
        TEXTS["sst2"].split("name:")[0].count("\n") + 1,
        "has no 'embedded' section",
        embedded=True,
    )
