"""How well scores tell anomalous pixels, images and lesions from healthy ones."""

from jaxvae.metrics.ranking import PixelMetrics as PixelMetrics
from jaxvae.metrics.ranking import aupro as aupro
from jaxvae.metrics.ranking import auroc as auroc
from jaxvae.metrics.ranking import average_precision as average_precision
from jaxvae.metrics.ranking import best_dice as best_dice
from jaxvae.metrics.ranking import dice as dice
from jaxvae.metrics.ranking import dice_at_fpr as dice_at_fpr
from jaxvae.metrics.ranking import fpr_at_tpr as fpr_at_tpr
from jaxvae.metrics.ranking import healthy_threshold as healthy_threshold
from jaxvae.metrics.ranking import iou as iou
from jaxvae.metrics.ranking import iou_at_fpr as iou_at_fpr
from jaxvae.metrics.ranking import pixel_metrics as pixel_metrics
