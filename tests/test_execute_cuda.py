"""The plan on a CUDA card: two virtual GPUs on streams of their own, exchanges, graphs, memory."""

import pytest
import torch

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.execute.cards import Cards, packed, places, unpacked
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.plan.planner import plan

# Higher rates make a chaos of rounding: at 0.01 float32 and float64 part by 0.6 % in four steps.
RATES = Hyperparameters(weight_rate=1e-4, bias_rate=2e-4)
NETWORK = load_network("alexnet-2012")


def batch(size: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = 60 * torch.randn(size, 224, 224, 3, generator=generator).permute(0, 3, 1, 2)
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
        (["--backend", "cudnn"], "--backend must be one of aten, native, triton"),
        (["--precision", "tf32"], "--precision tf32 needs --backend triton"),
        (["--graph"], "--graph needs --device cuda and --backend triton"),
        (["--graph", "--strict", "--device", "cuda", "--backend", "triton"], "--graph cannot hold"),
        (["--transport", "host"], "--transport host needs --device cuda"),
        (["--device", "tpu"], "--device must be one of auto, cpu, cuda"),
    ],
)
def test_choices_that_do_not_go_together_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_what_crosses_pcie_is_one_run_of_bytes(backend: str, policy: str) -> None:
    """Every exchange of the plan, between buffers that lie as they lie on the devices."""
    executor = Executor(plan(NETWORK, batch_size=2, backend=backend, policy=policy))
    memory = {runner.device.name: runner.memory for runner in executor.runners}
    for exchange in executor.plan.exchanges:
        source = memory[exchange.source].buffer(exchange.source_buffer)
        target = memory[exchange.target].buffer(exchange.target_buffer)
        source.copy_(torch.randn(source.shape))
        run = packed(source)
        assert run.is_contiguous()
        target.fill_(-1)
        target.copy_(unpacked(run.clone(), source))
        assert torch.equal(target, source), exchange.name


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("transport", ["peer", "host"])
def test_the_card_trains_as_the_cpu_does(backend: str, transport: str) -> None:
    wanted = trained("cpu", backend="aten")
    found = trained("cuda", backend=backend, transport=transport)
    assert torch.allclose(wanted["losses"], found["losses"], rtol=1e-4)
    for name, tensor in wanted["state"].items():
        distance = (tensor - found["state"][name]).norm() / tensor.norm().clamp_min(1e-12)
        assert distance < 5e-2, name
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
    limit = 1e-4 if precision == "fp32x3" else 1e-2
    assert torch.allclose(wanted["losses"], found["losses"], rtol=limit)


@pytest.mark.gpu
def test_races_do_not_show_in_repeated_steps() -> None:
    runs = [trained("cuda", backend="triton", schedule="overlap", steps=8) for _ in range(3)]
    for other in runs[1:]:
        assert torch.equal(runs[0]["losses"], other["losses"])


@pytest.mark.gpu
@pytest.mark.parametrize(("backend", "share"), [("aten", 0.10), ("triton", 0.02)])
def test_memory_is_what_the_plan_says(backend: str, share: float) -> None:
    """cuDNN and cuBLAS take workspaces of their own beside the plan's; our kernels do not."""
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
        assert measured == pytest.approx(planned, rel=share)


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
