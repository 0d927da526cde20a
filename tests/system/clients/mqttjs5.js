// SPDX-License-Identifier: Apache-2.0
'use strict';
// The scenarios of test_v5_clients.py with MQTT.js.
// Usage: node mqttjs5.js ADDRESS qos|properties|aliases|session|will|shared|takeover|refused
const mqtt = require('mqtt');
const assert = require('assert');

const [address, scenario] = process.argv.slice(2);
const PATIENCE = 20000;

function connect(clientId, more) {
    return mqtt.connectAsync('mqtt://' + address,
        Object.assign({ clientId, clean: true, reconnectPeriod: 0, protocolVersion: 5 }, more));
}

function sleep(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms));
}

class Inbox {
    constructor(client) {
        this.packets = [];
        this.waiting = null;
        client.on('message', (topic, payload, packet) => {
            this.packets.push(Object.assign({}, packet, { topic, payload: payload.toString() }));
            if (this.waiting) {
                this.waiting();
            }
        });
    }

    async next(ms) {
        const end = Date.now() + ms;
        while (this.packets.length === 0 && Date.now() < end) {
            await new Promise((resolve) => {
                const timer = setTimeout(resolve, end - Date.now());
                this.waiting = () => { clearTimeout(timer); resolve(); };
            });
            this.waiting = null;
        }
        return this.packets.shift();
    }

    async expect(topic, payload, qos) {
        const got = await this.next(PATIENCE);
        assert.ok(got, 'nothing came');
        assert.deepStrictEqual([got.topic, got.payload, got.qos], [topic, payload, qos]);
        return got;
    }

    async expectNothing(ms) {
        assert.strictEqual(await this.next(ms || 300), undefined);
    }
}

const scenarios = {
    async qos() {
        const sub = await connect('j5-s', { properties: { receiveMaximum: 5 } });
        const pub = await connect('j5-p');
        const inbox = new Inbox(sub);
        const granted = await sub.subscribeAsync({ 'j5/qos/+': { qos: 2 }, 'j5/other': { qos: 1 } });
        assert.deepStrictEqual(granted.map((g) => g.qos), [2, 1]);
        for (const qos of [0, 1, 2]) {
            await Promise.all(Array.from({ length: 50 },
                (_, i) => pub.publishAsync('j5/qos/t', `${qos}-${i}`, { qos })));
            for (let i = 0; i < 50; i++) {
                await inbox.expect('j5/qos/t', `${qos}-${i}`, qos);
            }
        }
        await sub.endAsync();
        await pub.endAsync();
    },

    async properties() {
        const c = await connect('j5-s');
        const inbox = new Inbox(c);
        await c.subscribeAsync('j5/pr/#', { qos: 1, properties: { subscriptionIdentifier: 11 } });
        await c.subscribeAsync('j5/pr/+', { qos: 1, rap: true, properties: { subscriptionIdentifier: 12 } });
        await c.publishAsync('j5/pr/a', 'x', {
            qos: 1,
            retain: true,
            properties: {
                payloadFormatIndicator: true,
                messageExpiryInterval: 100,
                contentType: 'text/plain',
                responseTopic: 'j5/answer',
                correlationData: Buffer.from('c-1'),
                userProperties: { k: ['1', '2'] },
            },
        });
        const got = await inbox.expect('j5/pr/a', 'x', 1);
        const p = got.properties;
        assert.strictEqual(p.payloadFormatIndicator, true);
        assert.ok(p.messageExpiryInterval > 95 && p.messageExpiryInterval <= 100);
        assert.strictEqual(p.contentType, 'text/plain');
        assert.strictEqual(p.responseTopic, 'j5/answer');
        assert.strictEqual(p.correlationData.toString(), 'c-1');
        assert.deepStrictEqual(p.userProperties.k, ['1', '2']);
        const ids = [];
        ids.push(...[].concat(p.subscriptionIdentifier));
        assert.deepStrictEqual(ids.sort(), [11, 12]);
        await inbox.expectNothing();
        await c.publishAsync('j5/pr/a', '', { qos: 1, retain: true });
        await c.endAsync();
    },

    async aliases() {
        const sub = await connect('j5-s', { properties: { topicAliasMaximum: 3 } });
        const pub = await connect('j5-p', { autoAssignTopicAlias: true });
        const inbox = new Inbox(sub);
        await sub.subscribeAsync('j5/al/+', { qos: 1 });
        for (let i = 0; i < 60; i++) {
            const topic = 'j5/al/' + (i * i % 13);
            await pub.publishAsync(topic, `${i}`, { qos: 1 });
            await inbox.expect(topic, `${i}`, 1);
        }
        await sub.endAsync();
        await pub.endAsync();
    },

    async session() {
        const properties = { sessionExpiryInterval: 100 };
        let sub = await connect('j5-dur', { properties });
        await sub.subscribeAsync('j5/dur/#', { qos: 2 });
        await sub.endAsync();
        const pub = await connect('j5-p');
        for (let i = 0; i < 40; i++) {
            await pub.publishAsync('j5/dur/t', `${i}`, { qos: 1 });
        }
        // Messages may come with CONNACK: the inbox has to be there before the connection.
        sub = mqtt.connect('mqtt://' + address,
            { clientId: 'j5-dur', clean: false, reconnectPeriod: 0, protocolVersion: 5, properties });
        const inbox = new Inbox(sub);
        const connack = await new Promise((resolve, reject) => {
            sub.once('connect', resolve);
            sub.once('error', reject);
        });
        assert.strictEqual(connack.sessionPresent, true);
        for (let i = 0; i < 40; i++) {
            await inbox.expect('j5/dur/t', `${i}`, 1);
        }
        await inbox.expectNothing();
        await sub.endAsync(false, { properties: { sessionExpiryInterval: 0 } });
        sub = mqtt.connect('mqtt://' + address,
            { clientId: 'j5-dur', clean: false, reconnectPeriod: 0, protocolVersion: 5 });
        const again = await new Promise((resolve) => sub.once('connect', resolve));
        assert.strictEqual(again.sessionPresent, false);
        await sub.endAsync();
        await pub.endAsync();
    },

    async will() {
        const sub = await connect('j5-s');
        const inbox = new Inbox(sub);
        await sub.subscribeAsync('j5/will', { qos: 1 });
        const dying = await connect('j5-w', {
            properties: { sessionExpiryInterval: 60 },
            will: {
                topic: 'j5/will',
                payload: Buffer.from('gone'),
                qos: 1,
                properties: { willDelayInterval: 1, contentType: 'text/will' },
            },
        });
        dying.on('error', () => {});
        dying.stream.destroy();
        await inbox.expectNothing(500);
        const got = await inbox.expect('j5/will', 'gone', 1);
        assert.strictEqual(got.properties.contentType, 'text/will');
        await dying.endAsync(true);
        await sub.endAsync();
    },

    async shared() {
        const members = [];
        for (let i = 0; i < 4; i++) {
            const c = await connect('j5-m' + i);
            await c.subscribeAsync('$share/g/j5/sh', { qos: 1 });
            members.push([c, new Inbox(c)]);
        }
        const pub = await connect('j5-p');
        for (let i = 0; i < 40; i++) {
            await pub.publishAsync('j5/sh', `${i}`, { qos: 1 });
        }
        await sleep(500);
        const counts = members.map(([, inbox]) => inbox.packets.length);
        assert.deepStrictEqual(counts, [10, 10, 10, 10]);
        for (const [c] of members) {
            await c.endAsync();
        }
        await pub.endAsync();
    },

    async takeover() {
        const first = await connect('j5-over', { properties: { sessionExpiryInterval: 60 } });
        const told = new Promise((resolve) => first.once('disconnect', resolve));
        const second = await connect('j5-over', { clean: false });
        assert.strictEqual((await told).reasonCode, 0x8E);
        await first.endAsync(true);
        await second.endAsync();
    },

    async refused() {
        const c = await connect('');
        await assert.rejects(c.publishAsync('$SYS/broker/x', 'x', { qos: 1 }));
        await assert.rejects(c.publishAsync('j5/format', Buffer.from([0xff, 0xfe]),
            { qos: 1, properties: { payloadFormatIndicator: true } }));
        await c.endAsync();
    },
};

scenarios[scenario]().then(() => {
    console.log('ok');
    process.exit(0);
}, (e) => {
    console.error(e);
    process.exit(1);
});
