"""The plan on a CUDA card: two virtual GPUs on streams of their own, exchanges, graphs, memory."""

import pytest
import torch

from alexsim.cli.app import main
from alexsim.execute.bind import Hyperparameters
from alexsim.execute.cards import Cards, in_memory_order, places
from alexsim.execute.executor import Executor
from alexsim.network.editions import load_network
from alexsim.plan.planner import plan

RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)
NETWORK = load_network("alexnet-2012")


def batch(size: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = 60 * torch.randn(size, 3, 224, 224, generator=generator)
    return images, torch.randint(1000, (size,), generator=generator)


def trained(device: str, size: int = 8, steps: int = 4, **choices: object) -> dict:
    """State and losses after some steps."""
    how = {name: choices.pop(name) for name in ("precision", "graph") if name in choices}
    executor = Executor(plan(NETWORK, batch_size=size, **choices), device=device, seed=3, **how)
    executor.initialise()
    losses = []
    for step in range(steps):
        context = executor.step(*batch(size, step), step=step, hyperparameters=RATES)
        losses.append(context.losses.cpu())
    state = {name: tensor.cpu() for name, tensor in executor.state().items()}
    return {"losses": torch.stack(losses), "state": state, "executor": executor}


def test_without_a_card_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        assert places("cuda", 2)[0].type == "cuda"
        return
    with pytest.raises(SystemExit) as caught:
        main(["train", "--device", "cuda"])
    assert caught.value.code == 2
    assert "PyTorch sees no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "cudnn"], "--backend must be one of aten, triton"),
        (["--precision", "tf32"], "--precision tf32 needs --backend triton"),
        (["--graph"], "--graph needs --device cuda and --backend triton"),
        (["--graph", "--strict", "--device", "cuda", "--backend", "triton"], "--graph cannot hold"),
        (["--transport", "host"], "--transport host needs --device cuda"),
        (["--device", "tpu"], "--device must be one of cpu, cuda"),
    ],
)
def test_choices_that_do_not_go_together_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_what_crosses_pcie_is_one_run_of_bytes() -> None:
    block = torch.arange(2 * 3 * 3 * 8.0).view(2, 3, 3, 8).permute(0, 3, 1, 2)
    for x in (block, block[:, 2:5], torch.randn(2, 4, 3, 3)[:, 1:3], torch.randn(3, 7)[:, 2:5]):
        run = in_memory_order(x).contiguous()
        into = torch.zeros(x.shape[0], *x.shape[1:])
        if x.stride(1) == 1 and x.ndim == 4:
            into = into.contiguous(memory_format=torch.channels_last)
        in_memory_order(into).copy_(run)
        assert torch.equal(into, x)
    # A whole channels-last block is one already: nothing is gathered.
    assert in_memory_order(block).is_contiguous()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("transport", ["peer", "host"])
def test_the_card_trains_as_the_cpu_does(backend: str, transport: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    wanted = trained("cpu", backend="aten")
    found = trained("cuda", backend=backend, transport=transport)
    assert torch.allclose(wanted["losses"], found["losses"], rtol=1e-3)
    for name, tensor in wanted["state"].items():
        distance = (tensor - found["state"][name]).norm() / tensor.norm().clamp_min(1e-12)
        assert distance < 1e-3, name
    if isinstance(found["executor"].transport, Cards):
        assert found["executor"].transport.exchanged_bytes == 4 * (
            found["executor"].plan.exchanged_bytes
        )


@pytest.mark.gpu
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_a_captured_step_gives_the_same_bits(schedule: str) -> None:
    choices = {"backend": "triton", "transport": "host", "schedule": schedule, "steps": 6}
    eager, graph = trained("cuda", **choices), trained("cuda", graph=True, **choices)
    assert torch.equal(eager["losses"], graph["losses"])
    for name, tensor in eager["state"].items():
        assert torch.equal(tensor, graph["state"][name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32x3", "tf32", "bf16", "fp16"])
def test_every_precision_learns_the_same(precision: str) -> None:
    wanted = trained("cuda", backend="triton")
    found = trained("cuda", backend="triton", precision=precision)
    limit = 1e-4 if precision == "fp32x3" else 5e-2
    assert torch.allclose(wanted["losses"], found["losses"], rtol=limit)


@pytest.mark.gpu
def test_races_do_not_show_in_repeated_steps() -> None:
    runs = [trained("cuda", backend="triton", schedule="overlap", steps=8) for _ in range(3)]
    for other in runs[1:]:
        assert torch.equal(runs[0]["losses"], other["losses"])


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_memory_is_what_the_plan_says(backend: str) -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    made = plan(NETWORK, batch_size=128, backend=backend)
    executor = Executor(made, device="cuda", seed=3)
    executor.initialise()
    for step in range(2):
        executor.step(*batch(128, step), step=step, hyperparameters=RATES)
    torch.cuda.synchronize()
    cards = len({runner.place for runner in executor.runners})
    if cards == 1:
        planned = sum(device.total_bytes for device in made.devices)
        measured = torch.cuda.max_memory_allocated() - before
        assert measured == pytest.approx(planned, rel=0.02)


@pytest.mark.gpu
def test_ops_are_timed_on_the_card() -> None:
    executor = Executor(plan(NETWORK, batch_size=64, backend="triton"), device="cuda", seed=3)
    executor.initialise()
    executor.step(*batch(64, 0), step=0, hyperparameters=RATES)
    executor.record()
    executor.step(*batch(64, 1), step=1, hyperparameters=RATES)
    spans = executor.trace().spans
    assert {span.op_id for span in spans} == {op.id for op in executor.plan.ops()}
    assert all(span.end_s >= span.start_s for span in spans)
