"""Packaging of lps_hf; the tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1] for line in (ROOT / "lps_hf" / "__init__.py").read_text().splitlines() if line.startswith("__version__")
)

INSTALL = [
    "accelerate>=1.15",
    "datasets>=5.2",
    "huggingface-hub>=2.4",
    "jinja2>=3.1",  # the model card's template
    "numpy>=2.0",
    "pyyaml>=6.0",  # recipes
    "safetensors>=0.8",
    "scikit-learn>=1.5",  # metrics over a whole split
    "torch>=2.7",
    "transformers>=5.23",
]
EXTRAS = {
    "viz": ["matplotlib>=3.9"],
    "chem": ["rdkit>=2025.3"],
    "files": ["ase>=3.24", "meshio>=5.3", "networkx>=3.4"],  # files of molecules, meshes and graphs that to_rows reads
    "canonical": ["canonaut>=1.0"],  # frame="canonical_labelling"
    "vision": ["pillow>=11.0"],  # image processors
    "demo": ["gradio>=6.0"],  # scripts/space
    "neighbours": [
        "onnx>=1.20",
        "onnxruntime>=1.23",
        "onnxscript>=0.6",
        "peft>=0.21",
        "tensorboard>=2.20",
        "torch_geometric>=2.7",
    ],
    "test": [
        "canonaut>=1.0",
        "matplotlib>=3.9",
        "networkx>=3.4",
        "parameterized>=0.9",
        "pillow>=11.0",
        "pytest>=9.0",
        "pytest-xdist>=3.8",
    ],
    "quality": ["import-linter>=2.5", "mypy>=2.0", "ruff>=0.17"],
}
EXTRAS["dev"] = sorted({name for extra in ("viz", "chem", "files", "neighbours", "test", "quality") for name in EXTRAS[extra]})

setup(
    name="lps_hf",
    version=VERSION,
    description="Make any pretrained network equivariant by probabilistic symmetrization, as Hugging Face models",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["lps_hf", "lps_hf.*"]),
    package_data={"lps_hf": ["py.typed"], "lps_hf.hub": ["card_template.md"]},
    python_requires=">=3.11",
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lps-hf=lps_hf.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
