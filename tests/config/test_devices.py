"""The specifications of a GPU are found by the name that its driver reports."""

import pytest

from qwenvl_train.config.devices import DEVICES, device_called


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100_40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx_6000_ada"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("NVIDIA GH200 480GB", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_a_device_is_known_by_its_name(name, known):
    assert device_called(name) == (DEVICES[known] if known else None)
