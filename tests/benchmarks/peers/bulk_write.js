// The official Node driver: bulkWrite of 1000 insertOne after 1000. Prints its own CPU time a document, in microseconds.
// node bulk_write.js URL DATABASE JSON COUNT
'use strict'

const { MongoClient } = require('mongodb')

const BATCH = 1000

async function write (collection, job, count) {
  for (let done = 0; done < count; done += BATCH) {
    const operations = []
    for (let i = 0; i < BATCH; i++) {
      operations.push({ insertOne: { document: { message: 'Job processed', data: job, timestamp: new Date() } } })
    }
    await collection.bulkWrite(operations, { ordered: false })
  }
}

async function main (url, database, text, count) {
  const client = new MongoClient(url)
  const collection = client.db(database).collection('logs', { writeConcern: { w: 'majority', journal: true } })
  const job = JSON.parse(text)
  // Until the code is compiled, it is not the driver that is measured.
  await write(collection, job, Math.min(count, 20000))
  const before = process.cpuUsage()
  await write(collection, job, count)
  const used = process.cpuUsage(before)
  console.log(`cpu ${(used.user + used.system) / count} us`)
  await client.close()
}

main(process.argv[2], process.argv[3], process.argv[4], Number(process.argv[5]))
