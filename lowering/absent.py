"""What ONNX lacks: the reasons of operators that have no lowering, by the operator's name."""

from __future__ import annotations

from collections.abc import Mapping

ABSENT: Mapping[str, str] = {
    "_linalg_svd": "singular value decomposition",
    "linalg_svd": "singular value decomposition",
    "linalg_pinv": "singular value decomposition, of which a pseudo-inverse is made",
    "linalg_lstsq": "least squares",
    "_linalg_eigh": "eigenvalues",
    "_linalg_eigvals": "eigenvalues",
    "linalg_eig": "eigenvalues",
    "linalg_eigvals": "eigenvalues",
    "linalg_ldl_factor_ex": "LDL factorization",
    "linalg_ldl_solve": "LDL factorization",
    "linalg_matrix_exp": "exponential of a matrix",
    "segment_reduce": "reduction over segments",
    "hash_tensor": "reduction by exclusive or",
    "special_airy_ai": "Airy function",
    "histogram": "histogram",
    "_histogramdd_bin_edges": "histogram",
    "_histogramdd_from_bin_cts": "histogram",
    "_histogramdd_from_bin_tensors": "histogram",
    "embedding_renorm": "write to some rows of an embedding's weights",
    "resize": "memory to resize: an operator makes new results",
    "_ctc_loss": "CTC loss",
    "sparse_sampled_addmm": "sparse tensors",
    "_sparse_mm_reduce_impl": "sparse tensors",
    "_to_sparse": "sparse tensors",
    "_cudnn_rnn": "recurrent layer of cuDNN's",
    "mkldnn_rnn_layer": "recurrent layer of oneDNN's",
    "_fused_moving_avg_obs_fq_helper": "observer of quantization",
}
