"""A page that shows one prediction of a symmetrized model: draws, error bar, and how it settles.

    python scripts/space/app.py                       # trains the quickstart's model first, one to two minutes
    python scripts/space/app.py --model my-model      # a checkpoint folder or Hub id of graphs or molecules

The model can also be given by the environment variable LPS_DEMO_MODEL.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from demo import (
    EXAMPLE_MOLECULES,
    Demo,
    analyse,
    draw,
    example_graphs,
    graph_row,
    load_demo,
    molecule_row,
    quickstart_demo,
    renumbered,
    summary,
    untrained_molecule_demo,
)

INTRODUCTION = """
# One network, every node order

An image transformer reads a graph as a picture of its adjacency matrix, and its answer depends on how the nodes happen to be
numbered. Probabilistic symmetrization ([arXiv 2306.02866](https://arxiv.org/abs/2306.02866)) lets a small equivariant network
draw node orders, shows the transformer the picture in each of them, and averages the answers. The average no longer depends on
the numbering, and it has an **error bar** that shrinks as more orders are drawn.
"""
ERROR_BARS = (
    "± is one standard error: how far the average of these draws may be from that of all orders. It does not say whether the "
    "model is right."
)
# Names of fonts of the system: the theme's own would be fetched from elsewhere.
THEME = gr.themes.Soft(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("LPS_DEMO_MODEL"), help="checkpoint folder or Hub id")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the quickstart's model")
    parser.add_argument("--folder", default="quickstart-demo", help="where the quickstart's model is, or will be, kept")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    arguments = parser.parse_args()
    if arguments.model:
        demos = [load_demo(arguments.model)]
    else:
        demos = [quickstart_demo(arguments.folder, arguments.steps), untrained_molecule_demo()]
    make_page(demos).launch(server_port=arguments.port, theme=THEME, footer_links=[])


def make_page(demos: list[Demo]) -> gr.Blocks:
    """The page, with a tab for each model."""
    with gr.Blocks(title="Probabilistic symmetrization", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        for demo in demos:
            with gr.Tab("Molecule" if demo.reads_molecules else "Graph"):
                page.load(*make_tab(demo))
    return page


def make_tab(demo: Demo) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """What one model is asked, and what it answers; returns the function that answers, its inputs and its outputs."""
    gr.Markdown(demo.about)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            if demo.reads_molecules:
                text = gr.Textbox(value=EXAMPLE_MOLECULES["aspirin"], label="SMILES", lines=2)
                examples, read = EXAMPLE_MOLECULES, molecule_row
            else:
                examples, read = example_graphs(demo), partial(graph_row, demo=demo)
                first = next(iter(examples.values()), "0 1")
                text = gr.Textbox(value=first, label="Edges, one per line", lines=8, max_lines=8)
            gr.Examples([[example] for example in examples.values()], [text], label="Examples", example_labels=list(examples))
            if not demo.reads_molecules:
                renumber = gr.Button("Renumber the nodes at random", size="sm")
            num_samples = gr.Slider(2, 256, value=64, step=2, label="Draws")
            seed = gr.Number(value=0, precision=0, minimum=0, label="Seed of the draws")
            run = gr.Button("Predict", variant="primary")
        with gr.Column(scale=3):
            answer = gr.Markdown()
            settling = gr.Plot(show_label=False)
            orders = gr.Plot(show_label=False)
    inputs, outputs = [text, num_samples, seed], [answer, settling, orders]
    show = partial(answer_for, demo, read)
    run.click(show, inputs, outputs, api_name=False)
    if not demo.reads_molecules:
        renumber.click(partial(renumber_for, read), [text, seed], [text, seed]).then(show, inputs, outputs)
    return show, inputs, outputs


def answer_for(demo: Demo, read: Callable[[str], dict[str, Any]], text: str, num_samples: float, seed: float) -> tuple[Any, ...]:
    """The answer and both figures; or what is wrong with the input, and none."""
    try:
        row = read(text)
        analysis = analyse(demo, row, int(num_samples), int(seed or 0))
    except (TypeError, ValueError) as error:
        return f"### This cannot be read\n{str(error).removeprefix('row 0: ')}", None, None
    orders, settling = draw(demo, row, analysis)
    return f"{summary(demo, analysis)}\n\n{ERROR_BARS}", settling, orders


def renumber_for(read: Callable[[str], dict[str, Any]], text: str, seed: float) -> tuple[str, int]:
    """The same graph in other words, and another seed, so that pressing again gives yet another; what is none stays as it is."""
    try:
        read(text)
    except ValueError:
        return text, int(seed or 0)
    return renumbered(text, int(seed or 0)), int(seed or 0) + 1


if __name__ == "__main__":
    main()
