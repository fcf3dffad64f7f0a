// mqtt.js in Node: `node mqtt_js_node.js URL`.
import mqtt from 'mqtt'
import { play } from './mqtt_js.js'

await play(mqtt, process.argv[2], (line) => console.log(line))
process.exit(0)
