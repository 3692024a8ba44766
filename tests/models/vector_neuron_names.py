"""What the tensors of the published vector-neuron network are called in `VectorNeuronInterface`."""

# A published module of linear map, norm and direction, and ours.
LAYERS = {
    "conv1": "convolutions.0.layer",
    "conv2": "convolutions.1.layer",
    "conv3": "score_head.joint",
    "std_feature.vn1": "score_head.invariant_in",
    "std_feature.vn2": "score_head.invariant_hidden",
}
LAYER_PARTS = {"map_to_feat": "feature", "batchnorm.bn": "norm", "map_to_dir": "direction"}
OTHERS = {
    "pool1.map_to_dir": "convolutions.0.pool.direction",
    "pool2.map_to_dir": "convolutions.1.pool.direction",
    "std_feature.vn_lin": "score_head.invariant_out",
    "head1": "score_head.linear",
    "pool3.map_to_dir": "frame_head.pool.direction",
    "head2.map_to_feat": "frame_head.linear",
}
VECTOR_NEURON_MODULES = OTHERS | {
    f"{layer}.{part}": f"{our_layer}.{our_part}" for layer, our_layer in LAYERS.items() for part, our_part in LAYER_PARTS.items()
}
"""Published modules, without the prefix `interface.vnn_interface.`, and ours."""


def our_vector_neuron_name(published: str) -> str:
    """Our name of a published tensor, `head1.weight` for one; both without prefix."""
    module, _, leaf = published.rpartition(".")
    return f"{VECTOR_NEURON_MODULES[module]}.{leaf}"
