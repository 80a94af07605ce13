//! Uses a library whose implementations are derived, and derives some.

use serde::{Deserialize, Serialize};
use shapes::Shape;

#[derive(Debug, Deserialize, Serialize)]
struct Drawing {
    name: String,
    shapes: Vec<Shape>,
}

fn main() {
    let shapes = vec![Shape::Square { side: 2.0 }, Shape::Circle { radius: -1.0 }];
    let drawing = Drawing { name: "two".to_owned(), shapes };
    let areas: Vec<String> = drawing.shapes.iter().map(|shape| shape.area().map_or_else(|e| e.to_string(), |a| a.to_string())).collect();
    assert_eq!(areas, ["4", "-1 is no size"]);
    println!("{drawing:?}");
}
