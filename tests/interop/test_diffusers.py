"""Reading networks in diffusers' format: its own outputs, a slow twin of one block, round trips, clear refusals."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from scidiff.errors import InputError
from scidiff.interop.ddpm_unet import DDPMUNet, UNetConfig, _Attention, _Resnet
from scidiff.interop.diffusers import load_diffusers, load_unet, scheduler_process
from scidiff.priors.conversions import Discrete, VPLinear

F64 = torch.float64
TINY = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.42.1",
    "sample_size": 16,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
}
DDPM = {  # the keys in which the published DDPM networks differ from the defaults
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
IMPROVED = {
    "resnet_time_scale_shift": "scale_shift",
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [8, 8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "center_input_sample": True,
    "mid_block_scale_factor": 1.4,
}


def filled(network):
    """Weights by a formula of their names, so that another library can hold the same."""
    for name, p in sorted(network.named_parameters()):
        v = torch.sin(0.7 * torch.arange(p.numel(), dtype=F64) + len(name)).reshape(p.shape)
        if p.ndim > 1:
            v = v / (p.numel() / p.shape[0]) ** 0.5
        else:
            v = 1 + 0.2 * v if name.endswith("weight") else 0.1 * v
        with torch.no_grad():
            p.copy_(v)
    return network


@pytest.mark.parametrize(
    ("changes", "values", "size"),
    [
        ({}, [-0.5321363, 0.0884836, 1.23443, -0.3209059, 0.3160477, -3.277882], 1.5418354),
        (DDPM, [-0.3618957, -0.0935356, 2.5706125, -0.6378863, -0.2614663, -1.6903227], 1.4352641),
        (IMPROVED, [-0.0960478, 0.4493543, -0.9504603, 0.0387552, -4.9038108, 0.3721146], 1.5087023),
    ],
    ids=["today", "ddpm", "improved"],
)
def test_outputs_of_diffusers(changes, values, size):
    """Numbers of UNet2DModel of diffusers 0.42.1 with the weights of `filled`, double precision."""
    network = filled(DDPMUNet(UNetConfig.read({**TINY, **changes})).double())
    x = torch.cos(0.37 * torch.arange(2 * 2 * 8 * 12, dtype=F64)).reshape(2, 2, 8, 12)
    with torch.no_grad():
        out = network(x, torch.tensor([3.0, 950.0], dtype=F64))
    found = out.flatten()[:: out.numel() // 6][:6]
    # Their sines and cosines of time are single precision.
    torch.testing.assert_close(found, torch.tensor(values, dtype=F64), rtol=2e-5, atol=2e-5)
    assert float(out.square().mean().sqrt()) == pytest.approx(size, rel=1e-5)


def by_hand_norm(x, groups, weight, bias, eps):
    out = torch.empty_like(x)
    size = x.shape[1] // groups
    for b in range(len(x)):
        for g in range(groups):
            part = x[b, g * size : (g + 1) * size]
            mean = part.sum() / part.numel()
            variance = ((part - mean) ** 2).sum() / part.numel()
            out[b, g * size : (g + 1) * size] = (part - mean) / (variance + eps) ** 0.5
    return out * weight[:, None, None] + bias[:, None, None]


def by_hand_conv(x, weight, bias):
    """3x3 or 1x1 convolution with zeros outside, point by point."""
    b, _, height, width = x.shape
    out = bias[None, :, None, None].repeat(b, 1, height, width)
    reach = weight.shape[-1] // 2
    for i in range(height):
        for j in range(width):
            for di in range(-reach, reach + 1):
                for dj in range(-reach, reach + 1):
                    if 0 <= i + di < height and 0 <= j + dj < width:
                        out[:, :, i, j] += x[:, :, i + di, j + dj] @ weight[:, :, di + reach, dj + reach].T
    return out


def silu(x):
    return x / (1 + torch.exp(-x))


@pytest.mark.parametrize("shift", ["default", "scale_shift"])
def test_a_residual_block_against_a_slow_twin(shift, generator):
    c = UNetConfig.read({**TINY, "resnet_time_scale_shift": shift, "time_embedding_dim": 5, "norm_num_groups": 2})
    block = filled(_Resnet(c, 4, 6, factor=1.3).double())
    x = torch.randn(2, 4, 3, 5, generator=generator, dtype=F64)
    e = torch.randn(2, 5, generator=generator, dtype=F64)
    h = by_hand_norm(x, 2, block.norm1.weight, block.norm1.bias, 1e-5)
    h = by_hand_conv(silu(h), block.conv1.weight, block.conv1.bias)
    time = silu(e) @ block.time_emb_proj.weight.T + block.time_emb_proj.bias
    if shift == "default":
        h = by_hand_norm(h + time[:, :, None, None], 2, block.norm2.weight, block.norm2.bias, 1e-5)
    else:
        h = by_hand_norm(h, 2, block.norm2.weight, block.norm2.bias, 1e-5)
        h = h * (1 + time[:, :6, None, None]) + time[:, 6:, None, None]
    h = by_hand_conv(silu(h), block.conv2.weight, block.conv2.bias)
    expected = (by_hand_conv(x, block.conv_shortcut.weight, block.conv_shortcut.bias) + h) / 1.3
    torch.testing.assert_close(block(x, e), expected)


def test_attention_against_a_slow_twin(generator):
    c = UNetConfig.read({**TINY, "attention_head_dim": 2, "norm_num_groups": 2})
    attention = filled(_Attention(c, 4, groups=2, factor=1.3).double())
    x = torch.randn(2, 4, 3, 5, generator=generator, dtype=F64)
    h = by_hand_norm(x, 2, attention.group_norm.weight, attention.group_norm.bias, 1e-5)
    out = torch.zeros(2, 15, 4, dtype=F64)
    for b in range(2):
        points = [h[b, :, i, j] for i in range(3) for j in range(5)]
        q, k, v = ([f.weight @ p + f.bias for p in points] for f in (attention.to_q, attention.to_k, attention.to_v))
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            for i in range(15):
                w = [math.exp(float(q[i][part] @ k[j][part]) / math.sqrt(2)) for j in range(15)]
                out[b, i, part] = sum(w[j] * v[j][part] for j in range(15)) / sum(w)
    out = out @ attention.to_out[0].weight.T + attention.to_out[0].bias
    torch.testing.assert_close(attention(x), (x + out.mT.reshape(x.shape)) / 1.3)


def write(folder, config, scheduler=None, rename=None):
    unet = folder / "unet"
    unet.mkdir(parents=True)
    network = filled(DDPMUNet(UNetConfig.read(config)))
    state = {(rename(k) if rename else k): v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, unet / "diffusion_pytorch_model.safetensors")
    (unet / "config.json").write_text(json.dumps(config))
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return network


def old(name):
    for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f".{new}.", f".{before}.")
    return name


@pytest.mark.parametrize("rename", [None, old], ids=["names of today", "names before 2023"])
def test_round_trip(rename, tmp_path, generator):
    network = write(tmp_path / "p", {**TINY, **DDPM}, {"prediction_type": "epsilon"}, rename).eval()
    prior = load_diffusers(tmp_path / "p", data_mean=0.1, data_std=0.5, loc=280.0, scale=5.0, units="K")
    assert prior.channels == 2 and prior.units == "K" and prior.prediction == "eps"
    # By hand at timestep 300: the network sees sqrt(abar) w0 + sqrt(1 - abar) eps.
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    abar = torch.cumprod(1 - beta, 0)[300]
    sigma = ((1 - abar) / abar).sqrt()
    u = torch.randn(2, 2, 8, 12, generator=generator)
    w = 0.1 + 0.5 * u
    with torch.no_grad():
        eps = network((abar.sqrt() * w).float(), torch.tensor([300.0, 300.0]))
    expected = (w - sigma * eps - 0.1) / 0.5
    torch.testing.assert_close(prior.denoise(u, sigma / 0.5), expected.float(), rtol=1e-4, atol=1e-4)


def test_a_learned_variance_and_a_lone_network(tmp_path, generator):
    network = write(tmp_path / "p", {**TINY, **IMPROVED})
    with pytest.raises(InputError, match="give process= and prediction="):
        load_diffusers(tmp_path / "p")
    prior = load_diffusers(tmp_path / "p" / "unet", VPLinear(), "x0", data_std=1.0)
    u, sigma = torch.randn(1, 2, 8, 4, generator=generator), torch.tensor(1.0)
    t = VPLinear().time(torch.ones(1, dtype=F64)).float()
    expected = network(u / 2**0.5, t)[:, :2]
    torch.testing.assert_close(prior.denoise(u, sigma), expected, rtol=1e-4, atol=1e-4)


def test_noise_levels_of_schedulers(tmp_path):
    """alphas_cumprod of diffusers 0.42.1's DDPMScheduler at timesteps 0, 500 and 999."""
    path = tmp_path / "scheduler_config.json"
    rows = {
        "linear": [0.9999, 0.0777967, 4.03583e-05],
        "scaled_linear": [0.9999, 0.331275, 0.000733412],
        "squaredcos_cap_v2": [0.999959, 0.492285, 2.42873e-09],
        "sigmoid": [0.999851, 0.298888, 3.96818e-05],
    }
    for kind, expected in rows.items():
        path.write_text(json.dumps({"beta_schedule": kind, "prediction_type": "v_prediction"}))
        process, prediction = scheduler_process(path)
        level = 1 / (1 + process.log_sigma.exp().square())
        assert prediction == "v"
        assert level[[0, 500, 999]].tolist() == pytest.approx(expected, rel=2e-4)
    path.write_text(json.dumps({"trained_betas": [0.1, 0.2, 0.3], "prediction_type": "sample"}))
    process, prediction = scheduler_process(path)
    assert prediction == "x0"
    torch.testing.assert_close(process.beta, Discrete(torch.tensor([0.1, 0.2, 0.3], dtype=F64)).beta)


def test_unsupported_keys_are_all_named(tmp_path):
    config = {**TINY, "time_embedding_type": "fourier", "num_class_embeds": 10, "sparkle": 1}
    config["down_block_types"] = ["SkipDownBlock2D", "DownBlock2D"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load_unet(tmp_path)
    for part in ("config.json", "time_embedding_type='fourier'", "num_class_embeds=10", "sparkle=1 (unknown key)",
                 "SkipDownBlock2D"):  # fmt: skip
        assert part in str(caught.value)
    scheduler = {"prediction_type": "flow", "beta_schedule": "laplace", "rescale_betas_zero_snr": True}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(InputError, match="'flow'.*rescale_betas_zero_snr.*'laplace'"):
        scheduler_process(tmp_path / "scheduler_config.json")


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"config.json: expected this file"):
        load_unet(tmp_path)
    write(tmp_path / "p", TINY)
    home = tmp_path / "p" / "unet"
    weights = home / "diffusion_pytorch_model.safetensors"
    (home / "config.json").write_text(json.dumps({**TINY, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(InputError, match="UNet2DConditionModel; only UNet2DModel"):
        load_unet(home)
    (home / "config.json").write_text(json.dumps({**TINY, "layers_per_block": 2}))
    with pytest.raises(InputError, match="the weights do not fit config.json"):
        load_unet(home)
    (home / "config.json").write_text(json.dumps(TINY))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="expected safetensors weights"):
        load_unet(home)
    weights.rename(home / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"found diffusion_pytorch_model.bin; pickles \(.bin\) are never"):
        load_unet(home)
    (home / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be parsed"):
        load_unet(home)
    network = DDPMUNet(UNetConfig.read(TINY))
    with pytest.raises(ValueError, match="sides a multiple of 2"):
        network(torch.zeros(1, 2, 7, 8), torch.zeros(1))
