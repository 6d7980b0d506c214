//! One encoder for all who want its output.
