-- Where an attempt runs became a list: it may have several nodes.
UPDATE attempts SET body = json_remove(
  json_set(body, '$.nodes', json_array(json_object(
    'instance', json_extract(body, '$.instance'),
    'devices', json(json_extract(body, '$.devices')),
    'unsaved', json(coalesce(json_extract(body, '$.unsaved'), '[]'))
  ))),
  '$.instance', '$.devices', '$.unsaved'
);
