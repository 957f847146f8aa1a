"""The papers behind the options of a run."""

from vlae.engine.settings import Settings

PAPERS = {
    "vlae": "X. Chen, D. P. Kingma, T. Salimans, Y. Duan, P. Dhariwal, J. Schulman, I. Sutskever, P. Abbeel: "
    "Variational Lossy Autoencoder. ICLR 2017, arXiv:1611.02731",
    "vae": "D. P. Kingma, M. Welling: Auto-Encoding Variational Bayes. ICLR 2014, arXiv:1312.6114",
    "pixelcnn": "A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves, K. Kavukcuoglu: "
    "Conditional Image Generation with PixelCNN Decoders. NIPS 2016, arXiv:1606.05328",
    "gates": "Y. N. Dauphin, A. Fan, M. Auli, D. Grangier: Language Modeling with Gated Convolutional Networks. ICML 2017, arXiv:1612.08083",
    "mixture": "T. Salimans, A. Karpathy, X. Chen, D. P. Kingma: PixelCNN++. ICLR 2017, arXiv:1701.05517",
    "iaf": "D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever, M. Welling: "
    "Improving Variational Inference with Inverse Autoregressive Flow. NIPS 2016, arXiv:1606.04934",
    "made": "M. Germain, K. Gregor, I. Murray, H. Larochelle: MADE: Masked Autoencoder for Distribution Estimation. ICML 2015, arXiv:1502.03509",
    "af": "G. Papamakarios, T. Pavlakou, I. Murray: Masked Autoregressive Flow for Density Estimation. NIPS 2017, arXiv:1705.07057",
    "resnet": "K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385",
    "densenet": "G. Huang, Z. Liu, L. van der Maaten, K. Q. Weinberger: Densely Connected Convolutional Networks. CVPR 2017, arXiv:1608.06993",
    "weightnorm": "T. Salimans, D. P. Kingma: Weight Normalization. NIPS 2016, arXiv:1602.07868",
    "ensembles": "B. Lakshminarayanan, A. Pritzel, C. Blundell: Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles. "
    "NIPS 2017, arXiv:1612.01474",
    "adamax": "D. P. Kingma, J. Ba: Adam: A Method for Stochastic Optimization. ICLR 2015, arXiv:1412.6980 (Adamax: section 7.1)",
    "adam": "D. P. Kingma, J. Ba: Adam: A Method for Stochastic Optimization. ICLR 2015, arXiv:1412.6980",
    "muon": "K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein: "
    "Muon: An optimizer for hidden layers in neural networks. 2024, kellerjordan.github.io/posts/muon",
    "averaging": "B. T. Polyak, A. B. Juditsky: Acceleration of Stochastic Approximation by Averaging. SIAM J. Control Optim. 30, 1992",
    "importance": "Y. Burda, R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders. ICLR 2016, arXiv:1509.00519",
    "ssim": "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli: Image Quality Assessment: From Error Visibility to Structural Similarity. "
    "IEEE Trans. Image Process. 13, 2004",
    "ridge": "A. E. Hoerl, R. W. Kennard: Ridge Regression: Biased Estimation for Nonorthogonal Problems. Technometrics 12, 1970",
    "bootstrap": "B. Efron: Bootstrap Methods: Another Look at the Jackknife. Annals of Statistics 7, 1979",
}


def papers(settings: Settings, *, depth: int, importance: bool, probed: bool) -> list[str]:
    """The citations of what a run used, and of nothing else.

    Args:
        settings: resolved settings.
        depth: bits of a pixel value.
        importance: whether its likelihood was importance-sampled.
        probed: whether its code was probed.
    """
    keep, model = settings.keep, settings.model
    has_code, sees, optimizer = keep.code != "none", keep.window != "none", settings.train.optimizer
    used = {
        "vlae": True,
        "vae": has_code,
        "pixelcnn": sees,
        "gates": sees,
        "mixture": depth > 1,
        "iaf": has_code and (model.posterior == "iaf" or settings.objective.kind == "free_bits"),
        "made": has_code and keep.code == "vector" and (model.prior == "af" or model.posterior == "iaf"),
        "af": has_code and model.prior == "af",
        "resnet": has_code and model.encoder == "resnet",
        "densenet": has_code and model.encoder == "densenet",
        "weightnorm": True,
        "ensembles": model.members is not None and model.members > 1,
        "adamax": optimizer == "adamax",
        "adam": optimizer in ("adam", "muon"),  # Muon leaves to Adam what is no weight of a convolution
        "muon": optimizer == "muon",
        "averaging": True,
        "importance": importance,
        "ssim": has_code,
        "ridge": probed,
        "bootstrap": probed,
    }
    return [PAPERS[name] for name, is_used in used.items() if is_used]
