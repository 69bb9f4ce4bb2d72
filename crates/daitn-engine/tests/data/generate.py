"""Writes the Parquet files of the tests with pyarrow, so that the reader is tested against another implementation.

Run from the root of the repository: pip install pyarrow && python crates/daitn-engine/tests/data/generate.py
"""

import datetime
import decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

digits = pa.csv.read_csv("examples/digits/digits.csv")
pixels = [c for c in digits.column_names if c != "label"]
narrow = pa.table({c: digits[c].cast(pa.uint8()) for c in pixels} | {"label": digits["label"]})
pq.write_table(narrow, "examples/digits/digits.parquet", compression="zstd", row_group_size=1000)

mixed = pa.table(
    {
        "half": pa.array([0.5, 1.5, -2.5, 3.25], pa.float32()),
        "real": pa.array([0.1, 1e300, -7.0, 2.0], pa.float64()),
        "unsigned": pa.array([0, 1, 2**31 + 5, 2**32 - 1], pa.uint32()),
        "signed": pa.array([-1, 0, 1, -(2**31)], pa.int32()),
        "flag": pa.array([True, False, True, True]),
        "gap": pa.array([1.0, None, 3.0, 4.0], pa.float64()),
        "name": pa.array(["ja", "nein", "ja", " ja "]),
        "number_text": pa.array(["1", "2.5", "-3e2", "4"]),
        "money": pa.array([decimal.Decimal("1.25")] * 4, pa.decimal128(9, 2)),
        "day": pa.array([datetime.date(2026, 1, d) for d in (1, 2, 3, 4)]),
        "list": pa.array([[1, 2], [], [3], [4]], pa.list_(pa.int32())),
    }
)
data = "crates/daitn-engine/tests/data/"
pq.write_table(mixed, data + "mixed.parquet")
flat = mixed.drop(["list", "money", "day"])
pq.write_table(flat, data + "flat-v2.parquet", data_page_version="2.0", use_dictionary=False)
pq.write_table(flat.select(["half"]), data + "gzip.parquet", compression="gzip")
pq.write_table(
    flat.select(["half", "name"]),
    data + "delta.parquet",
    use_dictionary=False,
    column_encoding={"name": "DELTA_BYTE_ARRAY", "half": "BYTE_STREAM_SPLIT"},
)
