"""Tables of whole networks: each row is a case, or left out by a rule on its conditions."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from alexsim.cli.app import main
from alexsim.costs.correction import UNFITTED, load_correction
from alexsim.editions.load import load_network
from alexsim.errors import ProfileError
from alexsim.fidelity import validation
from alexsim.fidelity.judging import judge
from alexsim.fidelity.row_files import COLUMNS, NETWORK_COLUMNS, Row, read_rows
from alexsim.fidelity.rows import Case, Excluded, case_of
from alexsim.fidelity.timed import works
from alexsim.fidelity.validation import cases, predict, predict_all
from alexsim.machine.machine import load_machine
from alexsim.network.layers import LocalResponseNorm
from alexsim.plan.plan import OpKind
from alexsim.report.validation import by_network, left_out

VALUES = ("images_per_s", "time_s")
USUAL = {
    "source": "somebody/benchmark", "source_path": "a.csv", "license": "MIT",
    "network": "resnet18", "framework": "pytorch (2019, cuda 10), cudnn.benchmark",
    "device": "GeForce RTX 2080 Ti", "n_gpus": "1", "batch": "12", "precision": "fp32",
    "pass": "forward", "images_per_s": "2400", "time_s": "0.005", "notes": "",
}  # fmt: skip
SEVERAL = {"n_gpus": "4", "batch": "48", "notes": "batch of all cards"}
TABLE = [
    USUAL,
    USUAL | {"time_s": "0.006", "images_per_s": "2000"},
    USUAL | {"pass": "forward+backward", "notes": "upload of images inside; no update"},
    USUAL | {"precision": "fp16", "device": "TITAN V"},
    USUAL | SEVERAL | {"pass": "train-step", "time_s": "0.07"},
    USUAL | {"network": "vgg11", "device": "V100"},
    USUAL | {"network": "ssd"},
    USUAL | {"network": "bert_large (sequence 512)", "notes": "sequences, not images"},
    USUAL | {"device": "iPhone 5S", "framework": "ncnn, Vulkan"},
    USUAL | {"pass": "unclear", "time_s": "", "batch": ""},
]


def written(path: Path, table: list[dict[str, str]], *, without: tuple[str, ...] = ()) -> str:
    names = [name for name in USUAL if name not in without]
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return str(path)


def row(tmp_path: Path, **given: str) -> Row:
    return read_rows(written(tmp_path / "row.csv", [USUAL | given]))[0]


def case(tmp_path: Path, **given: str) -> Case:
    ran = case_of(row(tmp_path, **given))
    assert isinstance(ran, Case), ran.why
    return ran


def test_zipped_or_blind_the_rows_are_the_same(tmp_path: Path) -> None:
    plain = Path(written(tmp_path / "plain.csv", TABLE))
    rows = read_rows(str(plain))
    (tmp_path / "zipped.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_rows(str(tmp_path / "zipped.csv.gz")) == rows
    blind = read_rows(written(tmp_path / "blind.csv", TABLE, without=(*VALUES, "license")))
    for known, unknown in zip(rows, blind, strict=True):
        assert unknown == replace(known, value=None, unit="ms per batch")
    correction = load_correction()
    for known, unknown in zip(*(cases(table)[0] for table in (rows, blind)), strict=True):
        assert predict(unknown, correction).value == predict(known, correction).value
    assert judge(predict_all(cases(blind)[0], correction), correction) == []


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"pass": "unclear"}, "no time of a training pass"),
        ({"notes": "sequences, not images; tp4"}, "sequences, not images"),
        ({"notes": "core 1607 MHz, memory 3500 MHz"}, "clocks set apart from the sheet's"),
        ({"notes": "core offset -100, memory offset 0 MHz"}, "clocks set apart from the sheet's"),
        (
            {"notes": "training job with its input pipeline, which may bound it"},
            "the input pipeline may bound it, and its host is not stated",
        ),
        ({"notes": "adam"}, "an update by Adam"),
        (
            {"framework": "NVCaffe fp16 2016-07 + cudnn 5.1", "device": "GTX 1080"},
            "half-precision arithmetic at a small share of the float32 rate",
        ),
        ({"framework": "ncnn, Vulkan"}, "no cost model"),
        ({"device": "iPhone 5S"}, "no data sheet"),
        ({"batch": ""}, "batch size per device not stated"),
        ({"n_gpus": "5"}, "the batch does not divide over the GPUs"),
        ({"n_gpus": "4"}, "how the GPUs share the work is not stated"),
        ({"network": "resnet1202"}, "not among our editions as it was measured"),
        ({"network": "resnet18_wide"}, "not among our editions as it was measured"),
    ],
)
def test_a_row_is_left_out_by_its_conditions(
    tmp_path: Path, given: dict[str, str], rule: str
) -> None:
    for values in ({}, {"time_s": "1e-6", "images_per_s": "1e6"}, dict.fromkeys(VALUES, "")):
        left = case_of(row(tmp_path, **given, **values))
        assert isinstance(left, Excluded)
        assert left.rule == rule


@pytest.mark.parametrize(
    ("given", "field", "wanted"),
    [
        ({"precision": "fp32, TF32 allowed", "device": "A100-SXM4-40GB"}, "precision", "tf32"),
        ({"precision": "fp32 (TF32 on Ampere and later)"}, "precision", "fp32"),
        ({"precision": "fp16 (tensor cores)"}, "precision", "fp16"),
        ({"device": "2080 Ti (CUDA 10.0.130, CuDNN 7.4.2.24)"}, "device", "rtx2080-ti"),
        ({"device": "TITAN Xp"}, "device", "titan-xp"),
        ({"device": "Titan X (Pascal)"}, "device", "titan-x-pascal"),
        ({"device": "Tesla K40m"}, "device", "k40"),
        ({"framework": "pytorch (NGC image of its year)"}, "library", "cudnn-v8"),
        ({"framework": "NVCaffe 0.15 + cudnn 5.1"}, "family", "nvcaffe"),
        (
            {"framework": "NVCaffe fp16 2016-07 + cudnn 5.1", "device": "Jetson TX1"},
            "library", "cudnn-v5.1",
        ),
        ({"framework": "caffe 2016-10 (im2col+cuBLAS 8.0)"}, "library", "im2col-gemm"),
        ({"framework": "torch7 + cudnn R1"}, "library", "cudnn-v1"),
        ({"framework": "torch7 + cunn"}, "library", "im2col-gemm"),
        ({"framework": "MXNet", "notes": "caffe 1, MXNet 0.7; cudnn 5.1"}, "library", "cudnn-v5.1"),
        ({"framework": "Keras (TensorFlow)", "notes": "cudnn 5.0"}, "family", "tensorflow"),
        ({"pass": "weight gradients only"}, "passes", "bwd-weight"),
        (SEVERAL | {"batch": "48"}, "batch_size", 48),
    ],
)  # fmt: skip
def test_names_of_these_tables_are_known(
    tmp_path: Path, given: dict[str, str], field: str, wanted: object
) -> None:
    assert getattr(case(tmp_path, **given), field) == wanted


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("vgg19_bn", "vgg19_bn"),
        ("vgg11", "vgg11"),
        ("googlenet", "googlenet"),
        ("bvlc-googlenet", "googlenet-caffe"),
        ("GoogLeNet of convnet-benchmarks", "googlenet-caffe+no-lrn"),
        ("AlexNet of the fbcunn example", "alexnet-fbcunn"),
        ("five fully connected layers, 512 in, 1000 out, 11 million parameters", "fcn-5"),
    ],
)
def test_tables_names_of_networks_are_known(tmp_path: Path, printed: str, name: str) -> None:
    assert case(tmp_path, network=printed).network == load_network(name)


def test_squeezenets_of_caffe_s_deploy_files_take_227_pixels(tmp_path: Path) -> None:
    """Iandola et al.'s prototxt: 1.0 pads conv10, so that pool10 has 15 x 15 pixels."""
    for version, side in (("1.0", 15), ("1.1", 14)):
        network = case(tmp_path, network=f"deepscale-squeezenet-{version}").network
        assert network.input_shape == (3, 227, 227)
        assert network.parts_of("classifier_1")[0].output_shape == (1000, side, side)


def test_a_script_may_pass_further_networks(tmp_path: Path) -> None:
    networks = {"resnet1202": load_network("resnet50"), "resnet18": load_network("vgg16")}
    path = written(tmp_path / "x.csv", [USUAL | {"network": "resnet1202"}, USUAL])
    deep, other = validation.all_rows(path, networks)[0]
    assert (deep.network.name, other.network.name) == ("resnet50", "vgg16")
    assert [left.rule for left in validation.all_rows(path)[1]] == [
        "not among our editions as it was measured"
    ]


def test_an_upload_takes_its_link(tmp_path: Path) -> None:
    link = load_machine("rtx2080-ti").link
    for precision, size in (("fp32", 4), ("fp16", 2)):
        with_it = case(tmp_path, precision=precision, notes="upload of images inside")
        upload_s = link.seconds(size * 12 * 3 * 224 * 224)
        for correction in (UNFITTED, load_correction()):
            times = [
                predict(ran, correction).value
                for ran in (case(tmp_path, precision=precision), with_it)
            ]  # fmt: skip
            # From memory that is not pinned, which the fit has seen, it takes longer.
            assert times[1] - times[0] >= 0.999e3 * upload_s
            assert correction.forests or times[1] - times[0] == pytest.approx(1e3 * upload_s)


def test_several_cards_share_a_batch_and_only_a_step_updates(tmp_path: Path) -> None:
    alone = case(tmp_path)
    shared = case(tmp_path, **SEVERAL)
    correction = load_correction()
    assert predict(shared, correction).value == predict(alone, correction).value
    both, step = (
        predict(case(tmp_path, **SEVERAL, **{"pass": name}), correction).value
        for name in ("forward+backward", "train-step")
    )
    assert predict(shared, correction).value < both < step


def test_deployed_nets_work_in_weights_and_norms_alone(tmp_path: Path) -> None:
    given = {
        "network": "bvlc-alexnet", "framework": "caffe 2016-10 + cudnn 5.1",
        "device": "GTX 1080", "pass": "weight gradients only",
    }  # fmt: skip
    deployed = case(tmp_path, **given, notes="deploy network without loss: no input gradients")
    kinds = [
        (work.kind, isinstance(work.part.layer, LocalResponseNorm)) for work in works(deployed)
    ]
    assert kinds.count((OpKind.GRAD_INPUT, True)) == 2
    assert set(kinds) == {(OpKind.GRAD_INPUT, True), (OpKind.GRAD_WEIGHT, False)}


def test_rows_of_equal_conditions_are_timed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cases(read_rows(written(tmp_path / "x.csv", TABLE)))[0]
    correction, timed, heard = load_correction(), [], []
    separately = [predict(each, correction) for each in ran]
    on_one = validation._on_one_gpu
    monkeypatch.setattr(
        validation, "_on_one_gpu", lambda *args: timed.append(args) or on_one(*args)
    )
    assert predict_all(ran, correction, done=heard.append) == separately
    assert heard == [1, 2, 3, 4, 5, 6]
    assert len(timed) == 4  # the first two rows differ in their figures alone; one has four cards


def test_every_row_is_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path / "x.csv", TABLE), tmp_path / "out.csv"
    with pytest.raises(SystemExit) as caught:
        main(["check", "validate", "--measurements", path, "--json", "-o", str(out)])
    assert not caught.value.code
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["predicted"]) == (10, 6)
    rules = {rule["rule"]: rule["rows"] for rule in document["excluded_by_rule"]}
    assert sum(rules.values()) == 4 == len(document["excluded"])
    assert sum(errors["rows"] for errors in document["networks"]) == 6
    lines = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    for errors in document["networks"]:
        keys = ("network", "device", "framework")
        of_it = [
            abs(float(line["error"]))
            for line in lines
            if line["error"] and all(line[key] == errors[key] for key in keys)
        ]
        assert len(of_it) == errors["rows"]
        assert median(of_it) == pytest.approx(errors["median_absolute_error"], abs=1e-4)
    assert {line["id"] for line in lines} == {f"line {number}" for number in range(2, 12)}
    with pytest.raises(SystemExit) as caught:
        main(["check", "validate", "--measurements", path, "--summary"])
    text = capsys.readouterr().out
    assert not caught.value.code
    for rule in (*rules, "6 of 10 rows predicted", "every row, trusted or not"):
        assert rule in text


def test_layers_are_not_errors_of_their_network() -> None:
    chosen = [
        each for each in validation.all_rows("published")[0] if "alexnet" in each.network.name
    ]
    whole = [each for each in chosen if not each.single_layer]
    groups = by_network(predict_all(chosen, load_correction()))
    assert len(whole) == sum(group.summary.rows for group in groups) < len(chosen)


def test_rules_are_counted_by_what_they_name(tmp_path: Path) -> None:
    table = [USUAL | {"device": name} for name in ("a", "a", "b")] + [USUAL | {"notes": "adam"}]
    excluded = cases(read_rows(written(tmp_path / "x.csv", table)))[1]
    assert left_out(excluded) == {
        "no data sheet": {"a": 2, "b": 1},
        "an update by Adam": {"an update by Adam": 1},
    }


def test_malformed_tables_name_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("network,framework\na,b\n", "utf-8")
    with pytest.raises(ProfileError, match="lacks the columns device, n_gpus, batch") as caught:
        read_rows(str(path))
    assert str(caught.value).endswith(f"of a table of whole networks: {','.join(NETWORK_COLUMNS)}")
    path.write_text("id,network,layer,gpu\n1,a,b,c\n", "utf-8")
    with pytest.raises(ProfileError, match="of a table of layers: ") as caught:
        read_rows(str(path))
    assert str(caught.value).endswith(",".join(COLUMNS))
    for given, words in (
        ({"time_s": "0"}, "time_s must be positive"),
        ({"images_per_s": "1e300"}, "images_per_s must be between"),
        ({"n_gpus": "none"}, "n_gpus must be a positive whole number"),
        ({"batch": "9" * 5000}, "batch must have at most 9 digits"),
    ):
        with pytest.raises(ProfileError, match=f"line 2: {words}"):
            row(tmp_path, **given)
    whole = gzip.compress(Path(written(path, TABLE)).read_bytes())
    for broken in (whole[:-20], whole[:12] + b"\xff\xff" + whole[14:]):
        path.write_bytes(broken)
        with pytest.raises(ProfileError, match=r"cannot read .*x\.csv"):
            read_rows(str(path))
