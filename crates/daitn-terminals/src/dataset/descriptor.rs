//! What a dataset terminal tells others: no file name, no row, no exact count.

use super::DatasetOptions;
use crate::columns::Columns;
use daitn_messages::descriptor::DatasetBody;

/// The body of the descriptor.
#[must_use]
pub(super) fn describe(
    options: &DatasetOptions,
    columns: &Columns,
    policy: String,
    compute_rate: u64,
) -> DatasetBody {
    DatasetBody {
        features: columns.features.clone(),
        target: columns.target.clone(),
        task: columns.task.clone(),
        records: columns.records(),
        label_distribution: columns
            .label_distribution()
            .filter(|_| options.share_label_distribution),
        schema_fingerprint: columns.fingerprint(),
        license: options.license.clone(),
        creator: options.creator.clone(),
        date_published: options.date_published.clone(),
        url: options.url.clone(),
        usage: options.usage.clone(),
        policy,
        data_version: options.data_version.clone(),
        price_micros_per_thousand: options.price_micros_per_thousand,
        compute_rate: if options.compute { compute_rate } else { 0 },
        compute_allowed: options
            .compute_allowed
            .iter()
            .map(|facility| facility.entity.clone())
            .collect(),
    }
}
