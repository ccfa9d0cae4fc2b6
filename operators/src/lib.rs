//! Every source, operator and sink, one file each.
