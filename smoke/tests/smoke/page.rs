//! The page names all fields of a report.

const PAGE: &str = include_str!("../../README.md");

#[test]
fn the_page_names_every_field() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../schema/report.v1.json")).unwrap();
    let check = &schema["$defs"]["check"]["properties"];
    let objects =
        [&schema["properties"], check, &check["times"]["properties"], &check["fault"]["properties"]];
    for field in objects.iter().flat_map(|object| object.as_object().unwrap().keys()) {
        assert!(PAGE.contains(&format!("`{field}`")), "{field} is not on the page");
    }
}
