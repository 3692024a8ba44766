"""Group elements are immutable values, of one kind or of several."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from lps_hf.models.elements import FiniteElement, LinearMap, Permutation, ProductElement, RigidMotion


def test_rank_is_the_inverse_of_index():
    index = torch.tensor([[[2, 0, 3, 1], [0, 1, 2, 3]]])
    assert Permutation(index).rank.tolist() == [[[1, 3, 0, 2], [0, 1, 2, 3]]]
    assert Permutation(index).soft is None


def test_elements_as_plain_tensors():
    index, matrix, translation = torch.tensor([[[1, 0]]]), torch.eye(3).view(1, 1, 3, 3), torch.ones(1, 1, 3)
    permutation, motion = Permutation(index, torch.rand(1, 1, 2, 2)), RigidMotion(matrix, translation)
    number = FiniteElement(torch.tensor([[3]]), torch.rand(1, 1, 4))
    assert permutation.tensors is index
    assert LinearMap(matrix).tensors is matrix
    assert motion.tensors == (matrix, translation)
    assert number.tensors is number.index
    product = ProductElement((permutation, motion))
    assert product.tensors == (index, (matrix, translation))


def test_samples_are_counted():
    permutation, motion = (
        Permutation(torch.zeros(2, 5, 4, dtype=torch.int64)),
        RigidMotion(torch.zeros(2, 5, 3, 3), torch.zeros(2, 5, 3)),
    )
    for element in (
        permutation,
        motion,
        FiniteElement(torch.zeros(2, 5, dtype=torch.int64)),
        ProductElement((motion, permutation)),
    ):
        assert element.num_samples == 5


def test_map_reaches_every_tensor_and_changes_nothing_in_place():
    index, soft = torch.arange(6).view(1, 2, 3), torch.rand(1, 2, 3, 3)
    matrix, translation = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3)
    product = ProductElement((Permutation(index, soft), RigidMotion(matrix, translation), LinearMap(matrix)))
    second = product.map(lambda tensor: tensor[:, 1:])
    permutation, motion, linear = second.factors
    assert type(second) is ProductElement
    assert (type(permutation), type(motion), type(linear)) == (Permutation, RigidMotion, LinearMap)
    assert torch.equal(permutation.index, index[:, 1:])
    assert torch.equal(permutation.soft, soft[:, 1:])
    assert torch.equal(motion.matrix, matrix[:, 1:])
    assert torch.equal(motion.translation, translation[:, 1:])
    assert second.num_samples == 1
    assert product.num_samples == 2
    assert Permutation(index).map(torch.clone).soft is None


def test_elements_do_not_change():
    with pytest.raises(FrozenInstanceError):
        LinearMap(torch.eye(2)).matrix = torch.zeros(2, 2)
