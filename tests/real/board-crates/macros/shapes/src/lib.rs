//! A library with derived implementations.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Shape {
    Circle { radius: f64 },
    Square { side: f64 },
}

#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    #[error("{0} is no size")]
    Size(f64),
}

impl Shape {
    pub fn area(&self) -> Result<f64, ShapeError> {
        match self {
            Self::Circle { radius: size } | Self::Square { side: size } if *size < 0.0 => Err(ShapeError::Size(*size)),
            Self::Circle { radius } => Ok(std::f64::consts::PI * radius * radius),
            Self::Square { side } => Ok(side * side),
        }
    }
}
