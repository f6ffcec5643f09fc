"""What the pages of docs/ show works: python blocks run in order, commands and options exist, links lead somewhere."""

import re
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest

PAGES = sorted(path.name for path in (Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text_of(root, page):
    return (root / "docs" / page).read_text(encoding="utf-8")


def blocks(text: str, *kinds: str) -> list[tuple[int, str]]:
    """Blocks of code of these kinds with the number of their first line."""
    return [(text.count("\n", 0, m.start(2)) + 1, m.group(2)) for m in BLOCK.finditer(text) if m.group(1) in kinds]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(root, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line, block in blocks(text_of(root, page), "python"):
            # Empty lines before the block, so that a traceback shows the line of the page.
            exec(compile("\n" * (line - 1) + block, page, "exec"), names)
    if page == "mri.md":
        unexplained = [name for name in names["result"].data_vars if f"`{name}`" not in text_of(root, page)]
        assert not unexplained


def options_of(words: list[str]) -> set[str]:
    """The options that the command takes whose name is the first words of a line.

    Raises:
        AssertionError: there is no such command.
    """
    from scidiff.cli.app import COMMANDS, build

    table: Mapping = COMMANDS
    while True:
        assert words and words[0] in table, f"{words[:1]} is none of {sorted(table)}"
        name, *words = words
        if isinstance(table[name].target, str):
            command = build(name, table[name])
            return {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        table = table[name].target


@pytest.mark.parametrize("page", PAGES)
def test_shell_blocks_name_commands_and_options_that_exist(root, page):
    for _, block in blocks(text_of(root, page), "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition("#")[0].split()
            while words and "=" in words[0]:  # variables of the environment
                words = words[1:]
            if "scidiff" not in words:
                continue
            words = words[words.index("scidiff") + 1 :]
            known = options_of(words) if not words[0].startswith("-") else {"--help", "--version"}
            typed = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert typed <= known, f"{page}: `{line.strip()}` uses {sorted(typed - known)}"


def test_the_check_of_options_finds_a_wrong_one():
    assert "--members" in options_of(["reconstruct", "mri"]) and "--membres" not in options_of(["reconstruct"])
    assert "--resume" in options_of(["train", "prior", "config.toml"])
    with pytest.raises(AssertionError, match="sharpen"):
        options_of(["sharpen"])


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_sentences_exist(root, page):
    from scidiff.cli.app import COMMANDS

    def paths(table, before=()):
        for name, entry in table.items():
            here = (*before, name)
            yield from [here] if isinstance(entry.target, str) else paths(entry.target, here)

    known = {option for path in paths(COMMANDS) for option in options_of(list(path))}
    text = BLOCK.sub("", text_of(root, page))
    assert {option for option in re.findall(r"`(--[a-z-]+)", text)} <= known
    for words in re.findall(r"`scidiff ([a-z][^`]*)`", text):
        options_of(words.split())


def test_every_key_of_a_training_configuration_is_explained(root):
    """The tables [training], [network] and, for each kind, [data]."""
    import dataclasses
    import inspect

    from scidiff.datasets import sources
    from scidiff.datasets.ct_slices import CTSlices
    from scidiff.datasets.slices import ComplexSlices, PhantomCrops
    from scidiff.nn.unet import UNet
    from scidiff.training import TrainingConfig

    keys = {f.name for f in dataclasses.fields(TrainingConfig)} | set(inspect.signature(UNet).parameters)
    kinds = (sources._slices, sources._phantom, sources._arrays, sources._ct, sources._stored)
    for part in (*kinds, ComplexSlices, PhantomCrops, CTSlices, *map(sources._simulator, sources.SIMULATORS)):
        keys |= set(inspect.signature(part).parameters)
    # What the program fills in itself, and names of collected arguments.
    keys -= {"inputs", "outputs", "folder", "volumes", "sizes", "options", "augmentation"}
    text = text_of(root, "priors.md")
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_every_key_of_an_autoencoder_configuration_is_explained(root):
    """The tables [network], [loss] and [codes]."""
    import dataclasses
    import inspect

    from scidiff.cli.train_latent import CODES
    from scidiff.nn.autoencoder import ConvAutoencoder
    from scidiff.training.reconstruction import ReconstructionLoss

    keys = {f.name for f in dataclasses.fields(ReconstructionLoss)} | set(CODES)
    keys |= set(inspect.signature(ConvAutoencoder).parameters) - {"channels"}
    text = text_of(root, "autoencoders.md")
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_every_option_of_the_mri_problem_is_explained(root):
    import inspect

    from scidiff.problems.mri import AcceleratedMRI

    # Those left out are of simulated cases and of the baseline.
    keys = set(inspect.signature(AcceleratedMRI).parameters) - {"coils", "shape", "noise", "tv_weight"}
    text = text_of(root, "mri.md")
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_exit_codes_are_those_of_the_program(root):
    from scidiff.cli.common import CODES, QUALITY_GATE

    table = re.findall(r"^\| (\d+) \|", text_of(root, "files.md"), re.MULTILINE)
    assert set(map(int, table)) == {0, 1, QUALITY_GATE, *CODES.values()}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(root, page):
    for target in re.findall(r"\]\(([^)#]+)", text_of(root, page)):
        assert target.startswith("https://") or (root / "docs" / target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_index(root):
    index = text_of(root, "README.md")
    assert all(f"({page})" in index for page in PAGES if page != "README.md")
    assert len(PAGES) >= 6


def test_the_matrix_of_samplers_is_that_of_the_program(root):
    from scidiff.posterior import table

    (matrix,) = re.findall(r"<!-- matrix:begin.*?-->\n(.*?)\n<!-- matrix:end", text_of(root, "samplers.md"), re.DOTALL)
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in matrix.splitlines()]
    keys = ("name", "family", "nonlinear", "counts", "black box", "requires")
    assert shown[2:] == [[f"`{row['name']}`", *(row[key] for key in keys[1:])] for row in table()]


def test_every_sampler_has_a_section_with_what_it_requires_and_a_source(root):
    from scidiff.posterior import get, names

    text = "\n".join(text_of(root, page) for page in PAGES if page.startswith("methods_"))
    sections = dict(re.findall(r"^## `(\w+)`(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(names())
    for name, section in sections.items():
        assert all(f"`{flag}`" in section for flag in get(name).requires) or "as `" in section, name
        assert all(word in section for word in ("**Requires**", "ost**", "**Defaults**", "**Reference**", "```python"))


@pytest.mark.parametrize("code", [0, 3, 75])
def test_slurm_scripts_put_a_job_back_only_if_it_was_interrupted(root, tmp_path, code):
    """The scripts of clusters.md with stand-ins: `srun` runs what it is given, `scidiff` ends with a code."""
    stand_ins = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"',
        "dask": "exit 0",
        "sleep": "exit 0",
        "scontrol": f'echo "$@" > {tmp_path}/requeued',
        "scidiff": f'[[ " $* " == *" --resume "* ]] || exit 9\nexit {code}',
    }
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    scripts = [block for _, block in blocks(text_of(root, "clusters.md"), "sh") if "#SBATCH" in block]
    assert len(scripts) == 2
    for script in scripts:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
        subprocess.run(["bash", "-c", script], env=environment, cwd=tmp_path, timeout=20, check=False)
        assert (tmp_path / "requeued").exists() == (code == 75)
        if code == 75:
            assert (tmp_path / "requeued").read_text().split() == ["requeue", "17"]
            (tmp_path / "requeued").unlink()
