//! Whether the mqtt sources of a pipeline would get what they ask for.

use cornjacket_compiler::Pipeline;
use cornjacket_operators::sources::mqtt;

use super::connections::Finding;
use crate::environment::of_machine;
use crate::mqtt_url::MqttUrl;
use crate::run::mqtt_sources;

/// Asks the broker for each source.
pub fn findings(url: &MqttUrl, pipeline: &Pipeline) -> Vec<Finding> {
    let finding = |(name, source): (String, mqtt::Source)| Finding {
        connection: format!("source {name} of {}", pipeline.name),
        outcome: look(url, &source),
    };
    mqtt_sources(pipeline).into_iter().map(finding).collect()
}

fn look(url: &MqttUrl, source: &mqtt::Source) -> Result<String, String> {
    let Some(address) = url.address().map_err(|error| error.to_string())? else {
        return Ok("no CJ_MQTT_URL, so the embedded broker will listen for its devices".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the process cannot start its threads: {error}"))?;
    runtime.block_on(mqtt::probe(source, &address, &*of_machine().random))
}
